using System.Diagnostics;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>Handlers that take time: one holds its thread, one a processor as well, and one gives its thread back.</summary>
internal static class DelayEndpoints
{
    private static readonly QueryNumber Milliseconds = new("ms", Default: 1000, Min: 0, Max: 60_000);

    public static void MapDelays(this IEndpointRouteBuilder endpoints)
    {
        var state = endpoints.ServiceProvider.GetRequiredService<ServerState>();
        var lifetime = endpoints.ServiceProvider.GetRequiredService<IHostApplicationLifetime>();
        endpoints.MapGet("/block", context => BlockAsync(context, lifetime.ApplicationStopping));
        endpoints.MapGet("/spin", SpinAsync);
        endpoints.MapGet("/wait", context => WaitAsync(context, state));
    }

    private static Task BlockAsync(HttpContext context, CancellationToken stopping)
    {
        if (!Milliseconds.TryRead(context.Request, out var milliseconds))
        {
            return QueryNumber.RefuseAsync(context.Response, Milliseconds);
        }

        // As Thread.Sleep would, but Ctrl+C ends it.
        stopping.WaitHandle.WaitOne((int)milliseconds);
        return context.Response.WriteAsync("blocked\n", context.RequestAborted);
    }

    private static Task SpinAsync(HttpContext context)
    {
        if (!Milliseconds.TryRead(context.Request, out var milliseconds))
        {
            return QueryNumber.RefuseAsync(context.Response, Milliseconds);
        }

        for (var began = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(began).TotalMilliseconds < milliseconds && !context.RequestAborted.IsCancellationRequested;)
        {
            Thread.SpinWait(1000);
        }

        return context.Response.WriteAsync("computed\n", context.RequestAborted);
    }

    private static async Task WaitAsync(HttpContext context, ServerState state)
    {
        if (!Milliseconds.TryRead(context.Request, out var milliseconds))
        {
            await QueryNumber.RefuseAsync(context.Response, Milliseconds);
            return;
        }

        try
        {
            await Task.Delay((int)milliseconds, context.RequestAborted);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            state.CountAbortedRequest();
            return;
        }

        await context.Response.WriteAsync("waited\n");
    }
}
