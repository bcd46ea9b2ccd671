using Evio.Transport;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;

namespace System.Net.Http;

/// <summary>Puts <see cref="HttpClient"/> on evio's event loops.</summary>
public static class EvioHttpHandlerExtensions
{
    /// <summary>
    /// Makes a handler connect through a factory: the <see cref="EvioTransportFactory"/>, or any other <see cref="IConnectionFactory"/>.
    /// </summary>
    /// <param name="handler">
    /// The handler, before its first request. Its <see cref="SocketsHttpHandler.ConnectCallback"/> is replaced; TLS and proxies work as
    /// before.
    /// </param>
    /// <param name="connections">The factory that makes the connections.</param>
    /// <param name="endPoint">
    /// The end point to connect to, whatever the request says: a Unix-domain socket, for example. Without it, the handler connects to the
    /// request's host.
    /// </param>
    /// <returns>The same handler.</returns>
    /// <remarks>
    /// With <see cref="LoopScheduling.Inline"/>, code that follows an awaited request runs on a loop. It must not block there. A
    /// synchronous wait for a request on a loop may never end.
    /// </remarks>
    public static SocketsHttpHandler UseEvioTransport(this SocketsHttpHandler handler, IConnectionFactory connections, EndPoint? endPoint = null)
    {
        ArgumentNullException.ThrowIfNull(handler);
        ArgumentNullException.ThrowIfNull(connections);
        handler.ConnectCallback = async (context, cancellationToken) =>
            new ConnectionStream(await connections.ConnectAsync(endPoint ?? context.DnsEndPoint, cancellationToken).ConfigureAwait(false));
        return handler;
    }
}
