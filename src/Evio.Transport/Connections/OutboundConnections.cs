using System.Net;
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
        EvioConnection? connection = null;
        var connectOptions = new StreamConnectOptions { NoDelay = options.NoDelay, ConnectTimeout = options.ConnectTimeout };
        await loops.Group.ConnectAsync(endPoint, Start, connectOptions, cancellationToken).ConfigureAwait(false);
        return connection!;

        void Start(StreamSocket socket)
        {
            connection = new EvioConnection(_connections, socket, options, loops.Logger) { IsOutbound = true };
            socket.Start(connection);
            _connections.Add(connection);
        }
    }

    /// <summary>Releases the buffers. To be called when the loops have ended, and all connections with them.</summary>
    internal Task EndAsync() => _connections.EndAsync();
}
