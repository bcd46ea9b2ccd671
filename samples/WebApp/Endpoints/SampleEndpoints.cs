using Evio.Samples.WebApp.Live;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>Everything the sample serves over HTTP, on whatever server.</summary>
public static class SampleEndpoints
{
    private const string Index = """
        GET  /                                   this list, or in a browser a live view of the loops
        GET  /plaintext                          Hello, World!
        GET  /json                               {"message":"Hello, World!"}
        GET  /string                             the string that the handler returns
        GET  /object                             the object that the handler returns, as JSON
        POST /object                             the same object back
        GET  /stream-objects                     20 objects, some of which the handler awaits
        GET  /compressed                         100 objects, compressed for clients that accept it
        GET  /file                               200 KiB from a file
        GET  /static/8k.txt                      8 KiB from a file, by the middleware for static files; and 200k.txt
        GET  /yield                              gives its thread back and goes on at once
        GET  /delay?ms=N                         awaits N ms, in the fewest lines
        GET  /call-out                           asks --call-out URL, or else this server's /string
        GET  /call-out-evio                      the same over the transport's connections
        GET  /mvc                                an action of MVC, with --mvc true
        POST /echo                               the body, streamed back
        POST /upload                             length and SHA-256 of the body
        POST /drain                              length of the body, which costs next to nothing to find out
        GET  /large?bytes=N                      N bytes, the same ones every time
        GET  /stream?chunks=N&bytes=M&delayMs=D  N flushed chunks of M bytes, D ms apart
        GET  /sse?count=N&delayMs=D              N server-sent events, D ms apart
        GET  /block?ms=N                         blocks its thread for N ms
        GET  /spin?ms=N                          computes for N ms, which holds a processor as well
        GET  /wait?ms=N                          awaits N ms; /info counts those whose client left before
        GET  /ws                                 WebSocket echo
        GET  /info                               transport, loops and their connections, process id
        GET  /health                             200 if every loop answers, else 503 and which do not
        GET  /metrics                            the meters for Prometheus, with --metrics true

        """;

    public static IServiceCollection AddSampleEndpoints(this IServiceCollection services, Settings settings)
    {
        services.AddSingleton(settings).AddSingleton<ServerState>().AddSingleton<LiveClients>();
        services.AddOrdinary();
        services.AddCallOut();
#if MVC
        services.AddMvcActions(settings);
#endif
        services.AddOperations(settings);
        return services;
    }

    public static void MapSampleEndpoints(this WebApplication app)
    {
        app.MapLive(Index);
        app.MapHello();
        app.MapOrdinary();
        app.MapFiles();
        app.MapCallOut();
#if MVC
        app.MapMvcActions();
#endif
        app.MapBodies();
        app.MapStreams();
        app.MapDelays();
        app.MapWebSocketEcho();
        app.MapInfo();
        app.MapOperations();
    }

    private static void MapInfo(this IEndpointRouteBuilder endpoints)
    {
        var state = endpoints.ServiceProvider.GetRequiredService<ServerState>();
        endpoints.MapGet("/info", context => context.Response.WriteJsonAsync(state.Describe(), SampleJson.Default.ServerInfo));
    }
}
