using Evio.Samples.WebApp.Live;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>Everything the sample serves over HTTP, on whatever server.</summary>
public static class SampleEndpoints
{
    private const string Index = """
        GET  /                                   this list, or in a browser a live view of the loops
        GET  /plaintext                          Hello, World!
        GET  /json                               {"message":"Hello, World!"}
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
        services.AddOperations(settings);
        return services;
    }

    public static void MapSampleEndpoints(this IEndpointRouteBuilder endpoints)
    {
        endpoints.MapLive(Index);
        endpoints.MapHello();
        endpoints.MapBodies();
        endpoints.MapStreams();
        endpoints.MapDelays();
        endpoints.MapWebSocketEcho();
        endpoints.MapInfo();
        endpoints.MapOperations();
    }

    private static void MapInfo(this IEndpointRouteBuilder endpoints)
    {
        var state = endpoints.ServiceProvider.GetRequiredService<ServerState>();
        endpoints.MapGet("/info", context => context.Response.WriteJsonAsync(state.Describe(), SampleJson.Default.ServerInfo));
    }
}
