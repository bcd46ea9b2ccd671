namespace Evio.Samples.WebApp.Endpoints;

/// <summary>Answers that must reach the client piece by piece, as they are made.</summary>
internal static class StreamEndpoints
{
    private static readonly QueryNumber Chunks = new("chunks", Default: 10, Min: 0, Max: 1_000_000);
    private static readonly QueryNumber Bytes = new("bytes", Default: 1024, Min: 1, Max: 1024 * 1024);
    private static readonly QueryNumber Count = new("count", Default: 10, Min: 0, Max: 1_000_000);
    private static readonly QueryNumber ChunkDelay = new("delayMs", Default: 0, Min: 0, Max: 60_000);
    private static readonly QueryNumber EventDelay = ChunkDelay with { Default = 1000 };

    public static void MapStreams(this IEndpointRouteBuilder endpoints)
    {
        endpoints.MapGet("/stream", StreamAsync);
        endpoints.MapGet("/sse", ServerSentEventsAsync);
    }

    private static async Task StreamAsync(HttpContext context)
    {
        var (request, response) = (context.Request, context.Response);
        if (!Chunks.TryRead(request, out var chunks) || !Bytes.TryRead(request, out var bytes) || !ChunkDelay.TryRead(request, out var delay))
        {
            await QueryNumber.RefuseAsync(response, Chunks, Bytes, ChunkDelay);
            return;
        }

        response.ContentType = "text/plain";
        for (var chunk = 0L; chunk < chunks; chunk++)
        {
            await PauseBeforeAsync(chunk, delay, context.RequestAborted);

            // One letter per chunk: a's, b's, c's and so on.
            response.BodyWriter.GetSpan((int)bytes)[..(int)bytes].Fill((byte)('a' + (chunk % 26)));
            response.BodyWriter.Advance((int)bytes);
            await response.BodyWriter.FlushAsync(context.RequestAborted);
        }
    }

    private static async Task ServerSentEventsAsync(HttpContext context)
    {
        var (request, response) = (context.Request, context.Response);
        if (!Count.TryRead(request, out var count) || !EventDelay.TryRead(request, out var delay))
        {
            await QueryNumber.RefuseAsync(response, Count, EventDelay);
            return;
        }

        response.ContentType = "text/event-stream";
        response.Headers.CacheControl = "no-cache";
        for (var number = 0L; number < count; number++)
        {
            await PauseBeforeAsync(number, delay, context.RequestAborted);

            // WriteAsync of text flushes too.
            await response.WriteAsync($"id: {number}\ndata: event {number}\n\n", context.RequestAborted);
        }
    }

    private static Task PauseBeforeAsync(long index, long milliseconds, CancellationToken aborted) =>
        index == 0 || milliseconds == 0 ? Task.CompletedTask : Task.Delay((int)milliseconds, aborted);
}
