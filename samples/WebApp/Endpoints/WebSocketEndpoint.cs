using System.Net.WebSockets;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>Sends every WebSocket message back, text as text, binary as binary, fragment by fragment.</summary>
internal static partial class WebSocketEndpoint
{
    private const int BufferSize = 16 * 1024;

    public static void MapWebSocketEcho(this IEndpointRouteBuilder endpoints)
    {
        var lifetime = endpoints.ServiceProvider.GetRequiredService<IHostApplicationLifetime>();
        var stopping = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        lifetime.ApplicationStopping.Register(stopping.SetResult);

        // The middleware is on this path alone: in the main pipeline every other request would pay for it.
        var pipeline = endpoints.CreateApplicationBuilder();
        pipeline.UseWebSockets();
        pipeline.Run(context => HandleAsync(context, stopping.Task));
        endpoints.Map("/ws", pipeline.Build());
    }

    private static async Task HandleAsync(HttpContext context, Task stopping)
    {
        if (!context.WebSockets.IsWebSocketRequest)
        {
            context.Response.StatusCode = StatusCodes.Status400BadRequest;
            await context.Response.WriteAsync("/ws takes WebSocket requests only\n");
            return;
        }

        using var socket = await context.WebSockets.AcceptWebSocketAsync();
        try
        {
            await EchoAsync(socket, stopping, context.RequestAborted);
        }
        catch (Exception broken) when (broken is WebSocketException or OperationCanceledException)
        {
            // The client went without a close frame, or sent what is no WebSocket frame, or did not answer the close of a server that
            // stops: no error of the server.
            var logger = context.RequestServices.GetRequiredService<ILogger<Program>>();
            LogBroken(logger, context.Connection.Id, broken);
        }
    }

    private static async Task EchoAsync(WebSocket socket, Task stopping, CancellationToken aborted)
    {
        var buffer = new byte[BufferSize];
        while (true)
        {
            var receiving = socket.ReceiveAsync(buffer.AsMemory(), aborted).AsTask();
            var first = await Task.WhenAny(receiving, stopping);
            if (first == stopping && socket.State == WebSocketState.Open)
            {
                await socket.CloseOutputAsync(WebSocketCloseStatus.EndpointUnavailable, "the server stops", aborted);
            }

            var received = await receiving;
            if (received.MessageType == WebSocketMessageType.Close)
            {
                if (socket.State == WebSocketState.CloseReceived)
                {
                    await socket.CloseOutputAsync(socket.CloseStatus ?? WebSocketCloseStatus.Empty, socket.CloseStatusDescription, aborted);
                }

                return;
            }

            if (socket.State == WebSocketState.Open)
            {
                await socket.SendAsync(buffer.AsMemory(0, received.Count), received.MessageType, received.EndOfMessage, aborted);
            }
        }
    }

    [LoggerMessage(1, LogLevel.Debug, "WebSocket of connection {ConnectionId} broke off")]
    private static partial void LogBroken(ILogger logger, string connectionId, Exception broken);
}
