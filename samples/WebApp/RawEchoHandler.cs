using System.Buffers;
using System.IO.Pipelines;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http.Features;

namespace Evio.Samples.WebApp;

/// <summary>
/// Sends back what it receives, without HTTP. It reads on only when the transport has taken what was written, so a client that
/// sends and never reads is held up by TCP and not by this process's memory.
/// </summary>
public sealed partial class RawEchoHandler(ILogger<RawEchoHandler> logger) : ConnectionHandler
{
    public override async Task OnConnectedAsync(ConnectionContext connection)
    {
        var (input, output) = (connection.Transport.Input, connection.Transport.Output);

        // Fires when the server stops.
        var closeRequested = connection.Features.GetRequiredFeature<IConnectionLifetimeNotificationFeature>().ConnectionClosedRequested;
        using var registration = closeRequested.UnsafeRegister(static reader => ((PipeReader)reader!).CancelPendingRead(), input);

        try
        {
            while (true)
            {
                var read = await input.ReadAsync();
                foreach (var segment in read.Buffer)
                {
                    output.Write(segment.Span);
                }

                // Without ConnectionClosed: that fires when the client has sent its last byte, and it may still be waiting for the echo.
                var flush = await output.FlushAsync(CancellationToken.None);
                input.AdvanceTo(read.Buffer.End);

                if (read.IsCompleted || read.IsCanceled || flush.IsCompleted)
                {
                    return;
                }
            }
        }
        catch (Exception broken) when (broken is ConnectionResetException or ConnectionAbortedException)
        {
            LogBroken(logger, connection.ConnectionId, broken);
        }
    }

    [LoggerMessage(1, LogLevel.Debug, "Connection {ConnectionId} broke off")]
    private static partial void LogBroken(ILogger logger, string connectionId, Exception broken);
}
