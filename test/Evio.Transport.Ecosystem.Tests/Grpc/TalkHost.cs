using System.Net;
using Evio.Transport.Testing;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Ecosystem.Tests.Grpc;

/// <summary>A server of <see cref="TalkService"/> and its client.</summary>
internal sealed class TalkHost : IAsyncDisposable
{
    private readonly HttpClient? _http;
    private readonly GrpcChannel _channel;

    private TalkHost(TransportHost server, HttpClient? http, GrpcChannel channel)
    {
        Server = server;
        _http = http;
        _channel = channel;
        Client = new Talk.TalkClient(channel);
    }

    public TransportHost Server { get; }

    public Talk.TalkClient Client { get; }

    public TalkService.Witness Witness => Server.Services.GetRequiredService<TalkService.Witness>();

    public static async Task<TalkHost> StartAsync(TransportKind kind, bool tls)
    {
        var server = await StartServerAsync(kind, tls ? HostSettings.Https : HostSettings.Http2);
        var http = server.CreateClient(HttpVersion.Version20);
        return new TalkHost(server, http, GrpcChannel.ForAddress(server.BaseAddress, new GrpcChannelOptions { HttpClient = http }));
    }

    /// <summary>The same without TLS, with the client's connections made by the server's own loops.</summary>
    public static async Task<TalkHost> StartOnOneGroupAsync(TransportKind kind)
    {
        var server = await StartServerAsync(kind, HostSettings.Http2);
        var handler = new SocketsHttpHandler { UseProxy = false }.UseEvioTransport(server.Services.GetRequiredService<EvioTransportFactory>(), server.EndPoint);
        return new TalkHost(server, null, GrpcChannel.ForAddress(
            server.BaseAddress, new GrpcChannelOptions { HttpHandler = handler, DisposeHttpClient = true }));
    }

    public static Task<TransportHost> StartServerAsync(TransportKind kind, HostSettings settings) =>
        TransportHost.StartAsync(kind, static application => application.MapGrpcService<TalkService>(), settings with
        {
            Services = static services => services.AddSingleton<TalkService.Witness>().AddGrpc(),
        });

    public async ValueTask DisposeAsync()
    {
        _channel.Dispose();
        _http?.Dispose();
        await Server.DisposeAsync();
    }
}
