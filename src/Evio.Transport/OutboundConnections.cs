using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport;

/// <summary>Makes connections to servers, on the loops on which others are accepted.</summary>
internal sealed class OutboundConnections(TransportLoops loops)
{
    private readonly ConnectionSet _connections = new(loops);

    internal async Task<ConnectionContext> ConnectAsync(EndPoint endPoint, CancellationToken cancellationToken)
    {
        var options = loops.Options;
        using var cancellation = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        if (options.ConnectTimeout != Timeout.InfiniteTimeSpan)
        {
            cancellation.CancelAfter(options.ConnectTimeout);
        }

        EvioConnection? connection = null;
        try
        {
            await loops.Group.ConnectAsync(endPoint, Start, new StreamConnectOptions { NoDelay = options.NoDelay }, cancellation.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // As the kernel says it when its own, much longer patience ends.
            throw new SocketException(
                (int)SocketError.TimedOut, $"No connection to {endPoint} could be made within {options.ConnectTimeout} ({nameof(options.ConnectTimeout)}).");
        }
        catch (OperationCanceledException)
        {
            throw new OperationCanceledException(cancellationToken);
        }

        return connection!;

        void Start(StreamSocket socket)
        {
            connection = new EvioConnection(_connections, socket, options, loops.Logger);

            // A client that is synchronous flushes, and waits for the answer on the same thread of the pool, which may have no other one.
            connection.Output.Coalesces = false;
            socket.Start(connection);
            _connections.Add(connection);
        }
    }

    /// <summary>Gives the buffers back. To be called when the loops have ended, and all connections with them.</summary>
    internal Task EndAsync() => _connections.EndAsync();
}
