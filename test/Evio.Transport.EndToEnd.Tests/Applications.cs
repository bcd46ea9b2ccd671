using System.Buffers;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

internal static class Applications
{
    /// <summary>Streams the request's body back as it comes.</summary>
    public static Task EchoAsync(HttpContext context) => context.Request.BodyReader.CopyToAsync(context.Response.BodyWriter);

    /// <summary>Reads the request's body to its end and then sends it back.</summary>
    public static async Task EchoWholeAsync(HttpContext context)
    {
        using var body = new MemoryStream();
        await context.Request.Body.CopyToAsync(body);
        context.Response.ContentLength = body.Length;
        await context.Response.Body.WriteAsync(body.GetBuffer().AsMemory(0, (int)body.Length));
    }

    /// <summary>Writes until the client is gone.</summary>
    public static async Task WriteUntilAbortedAsync(HttpContext context, Action<int>? written = null)
    {
        var chunk = new byte[100_000];
        while (!context.RequestAborted.IsCancellationRequested)
        {
            await context.Response.Body.WriteAsync(chunk);
            written?.Invoke(chunk.Length);

            // Writes to a client that is gone complete at once. Inline, a loop of them would keep the thread that has to notice.
            await Task.Yield();
        }
    }

    /// <summary>A handler beneath HTTP that sends every byte back and goes on doing so after the client's FIN.</summary>
    public sealed class RawEcho : ConnectionHandler
    {
        public override async Task OnConnectedAsync(ConnectionContext connection)
        {
            while (true)
            {
                var result = await connection.Transport.Input.ReadAsync();
                foreach (var segment in result.Buffer)
                {
                    connection.Transport.Output.Write(segment.Span);
                }

                await connection.Transport.Output.FlushAsync();
                connection.Transport.Input.AdvanceTo(result.Buffer.End);
                if (result.IsCompleted)
                {
                    return;
                }
            }
        }
    }
}
