using Evio.Transport;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Mvc;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>Handlers that ask another server: one over <see cref="HttpClient"/>'s own sockets, and one over the transport's connections.</summary>
internal static class CallOutEndpoints
{
    private const string OwnSockets = "sockets";
    private const string TransportConnections = "transport";

    public static void AddCallOut(this IServiceCollection services)
    {
        services.AddSingleton<CallOutTarget>();

        // As shipped, the client logs four lines for each call.
        services.AddHttpClient(OwnSockets).RemoveAllLoggers().ConfigurePrimaryHttpMessageHandler(static () => CreateHandler());
        services.AddHttpClient(TransportConnections).RemoveAllLoggers().ConfigurePrimaryHttpMessageHandler(static services =>
            // The factory is not registered on the Sockets transport, whose connections are those that the client makes by itself.
            services.GetService<EvioTransportFactory>() is { } factory ? CreateHandler().UseEvioTransport(factory) : CreateHandler());
    }

    public static void MapCallOut(this IEndpointRouteBuilder endpoints)
    {
        endpoints.MapGet("/call-out", static ([FromServices] IHttpClientFactory clients, [FromServices] CallOutTarget target) =>
            clients.CreateClient(OwnSockets).GetStringAsync(target.Url));
        endpoints.MapGet("/call-out-evio", static ([FromServices] IHttpClientFactory clients, [FromServices] CallOutTarget target) =>
            clients.CreateClient(TransportConnections).GetStringAsync(target.Url));
    }

    // Whatever proxy the environment names, the call is not for it.
    private static SocketsHttpHandler CreateHandler() => new() { UseProxy = false };
}

/// <summary>What the handlers ask: <c>--call-out</c>, or else this server's <c>/string</c>.</summary>
internal sealed class CallOutTarget(Settings settings, IServer server)
{
    private readonly Lazy<Uri> _url = new(() => settings.CallOut ?? FindOwn(settings, server));

    public Uri Url => _url.Value;

    private static Uri FindOwn(Settings settings, IServer server)
    {
        var address = (server.Features.Get<IServerAddressesFeature>()?.Addresses ?? [])
            .Select(BindingAddress.Parse)
            .FirstOrDefault(address => address is { Scheme: "http", IsUnixPipe: false }
                && address.Port != settings.RawPort && address.Port != settings.H2cPort)
            ?? throw new InvalidOperationException("This server does not listen for HTTP/1.1 on a port, so --call-out must name another one.");
        var host = address.Host is "*" or "+" or "0.0.0.0" or "[::]" ? "localhost" : address.Host;
        return new UriBuilder(address.Scheme, host, address.Port, "/string").Uri;
    }
}
