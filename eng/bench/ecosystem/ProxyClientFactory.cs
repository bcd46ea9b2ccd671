using Evio.Transport;
using Yarp.ReverseProxy.Forwarder;

namespace Evio.Bench.Ecosystem;

/// <summary>The proxy's clients: one with sockets of its own, and one with the transport's connections, where the server has those.</summary>
internal sealed class ProxyClientFactory(IServiceProvider services) : ForwarderHttpClientFactory
{
    private const string OwnSockets = "proxied";
    private const string TransportConnections = "proxied-evio";

    public static IReadOnlyList<string> Clusters { get; } = [OwnSockets, TransportConnections];

    protected override void ConfigureHandler(ForwarderHttpClientContext context, SocketsHttpHandler handler)
    {
        base.ConfigureHandler(context, handler);
        if (context.ClusterId == TransportConnections && services.GetService<EvioTransportFactory>() is { } transport)
        {
            handler.UseEvioTransport(transport);
        }
    }
}
