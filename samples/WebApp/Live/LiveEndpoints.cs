using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http.Features;

namespace Evio.Samples.WebApp.Live;

/// <summary>The front page: a picture of the loops at work.</summary>
internal static class LiveEndpoints
{
    private const string ContentSecurityPolicy =
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(500);

    /// <param name="endpoints">Where to add the routes.</param>
    /// <param name="index">What <c>/</c> answers to those who do not ask for HTML, such as curl.</param>
    public static void MapLive(this IEndpointRouteBuilder endpoints, string index)
    {
        var page = ReadPage("index.html");
        endpoints.MapGet("/", context =>
        {
            context.Response.Headers.Vary = "Accept";
            return AsksForHtml(context.Request)
                ? WritePageAsync(context.Response, page, "text/html; charset=utf-8")
                : context.Response.WriteAsync(index);
        });
        MapFile(endpoints, "live.css", "text/css; charset=utf-8");
        MapFile(endpoints, "live.js", "text/javascript; charset=utf-8");
        endpoints.MapGet("/live", WatchAsync);
        endpoints.MapPost("/live/connections", OpenConnectionsAsync);
    }

    private static bool AsksForHtml(HttpRequest request) =>
        request.Headers.Accept.Any(static accept => accept?.Contains("text/html", StringComparison.OrdinalIgnoreCase) == true);

    private static async Task WatchAsync(HttpContext context)
    {
        var (services, response) = (context.RequestServices, context.Response);
        var stopping = services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping;
        using var end = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, stopping);
        response.ContentType = "text/event-stream";
        response.Headers.CacheControl = "no-store";
        try
        {
            var server = services.GetRequiredService<ServerState>().Describe();
            await WriteEventAsync(response, "server", server, SampleJson.Default.ServerInfo, end.Token);
            using var observation = new LoopObservation(
                server.Loops.Count, services.GetRequiredService<IMeterFactory>(), services.GetRequiredService<DiagnosticListener>());
            using var timer = new PeriodicTimer(Interval);
            while (await timer.WaitForNextTickAsync(end.Token))
            {
                await WriteEventAsync(response, "loops", observation.Take(), SampleJson.Default.LoopSampleArray, end.Token);
            }
        }
        catch (OperationCanceledException) when (end.IsCancellationRequested)
        {
            // The page is closed, or the server stops.
        }
    }

    private static async Task WriteEventAsync<T>(HttpResponse response, string name, T data, JsonTypeInfo<T> type, CancellationToken end) =>
        await response.WriteAsync($"event: {name}\ndata: {JsonSerializer.Serialize(data, type)}\n\n", end);

    private static async Task OpenConnectionsAsync(HttpContext context)
    {
        // Where this request came in, others will.
        var server = context.Features.GetRequiredFeature<IConnectionEndPointFeature>().LocalEndPoint!;
        var clients = context.RequestServices.GetRequiredService<LiveClients>();
        if (await clients.TryOpenAsync(server, context.Request.Scheme) is { } batch)
        {
            await context.Response.WriteJsonAsync(batch, SampleJson.Default.ClientBatch);
            return;
        }

        context.Response.StatusCode = StatusCodes.Status429TooManyRequests;
        await context.Response.WriteAsync($"{LiveClients.MaxBatches * LiveClients.Count} connections are open already; they end after some seconds.\n");
    }

    private static void MapFile(IEndpointRouteBuilder endpoints, string name, string contentType)
    {
        var content = ReadPage(name);
        endpoints.MapGet($"/{name}", context => WritePageAsync(context.Response, content, contentType));
    }

    private static async Task WritePageAsync(HttpResponse response, byte[] content, string contentType)
    {
        response.ContentType = contentType;
        response.ContentLength = content.Length;
        response.Headers.CacheControl = "no-cache";
        response.Headers.ContentSecurityPolicy = ContentSecurityPolicy;
        response.Headers.XContentTypeOptions = "nosniff";
        await response.BodyWriter.WriteAsync(content);
    }

    private static byte[] ReadPage(string name)
    {
        using var resource = typeof(LiveEndpoints).Assembly.GetManifestResourceStream(name)
            ?? throw new InvalidOperationException($"The program does not contain {name}.");
        var content = new byte[resource.Length];
        resource.ReadExactly(content);
        return content;
    }
}
