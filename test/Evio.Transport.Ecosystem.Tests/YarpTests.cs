using System.Net;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text;
using Evio.Transport.Ecosystem.Tests.Grpc;
using Evio.Transport.Testing;
using Google.Protobuf;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Yarp.ReverseProxy.Configuration;
using Yarp.ReverseProxy.Forwarder;

namespace Evio.Transport.Ecosystem.Tests;

/// <summary>
/// YARP between a client and a server: the proxy on each transport, the server behind it on each, and, where the proxy is on evio, its connections to that
/// server on the same loops.
/// </summary>
public sealed class YarpTests
{
    private const TransportKind Inline = TransportKind.EvioInline;
    private const TransportKind Pool = TransportKind.EvioThreadPool;
    private const TransportKind Sockets = TransportKind.Sockets;

    [Theory, AllTransports(Inline, Pool, Sockets)]
    public async Task Requests_and_their_bodies_pass(TransportKind front, TransportKind behind)
    {
        await using var site = await Site.StartAsync(front, behind);
        using var client = site.Proxy.CreateClient();

        Assert.Equal("GET /hello?a=b", await client.GetStringAsync("/hello?a=b").OrTimeout());
        for (var i = 0; i < 3; i++)
        {
            var sent = TestData.Bytes(2_000_000, seed: i);
            using var response = await client.PostAsync("/echo", new ByteArrayContent(sent)).OrTimeout();
            TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync().OrTimeout());
        }
    }

    [Theory, AllTransports(Inline, Pool, Sockets)]
    public async Task Parallel_requests_keep_apart(TransportKind front, TransportKind behind)
    {
        await using var site = await Site.StartAsync(front, behind);
        using var client = site.Proxy.CreateClient();

        await Task.WhenAll(Enumerable.Range(0, 40).Select(async i =>
        {
            var sent = TestData.Bytes(50_000 + i, seed: i);
            using var response = await client.PostAsync("/echo", new ByteArrayContent(sent));
            TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync());
        })).OrTimeout();
    }

    [Theory, AllTransports(Inline, Pool, Sockets)]
    public async Task A_response_passes_piece_by_piece(TransportKind front, TransportKind behind)
    {
        await using var site = await Site.StartAsync(front, behind);
        using var client = site.Proxy.CreateClient();
        await using var stream = await client.GetStreamAsync("/pieces").OrTimeout();
        var buffer = new byte[6];

        // The server makes the next piece only when this one has got here.
        for (var i = 0; i < 20; i++)
        {
            await stream.ReadExactlyAsync(buffer).OrTimeout();
            Assert.Equal($"{i:D6}", Encoding.ASCII.GetString(buffer));
            site.NextPiece.Release();
        }

        Assert.Equal(0, await stream.ReadAsync(buffer).OrTimeout());
    }

    [Theory, AllTransports(Inline, Pool, Sockets)]
    public async Task WebSockets_pass(TransportKind front, TransportKind behind)
    {
        await using var site = await Site.StartAsync(front, behind);
        using var socket = new ClientWebSocket();
        await socket.ConnectAsync(new Uri($"ws://{site.Proxy.EndPoint}/ws"), default).OrTimeout();
        for (var i = 0; i < 50; i++)
        {
            var sent = TestData.Bytes(i * 1000, seed: i);
            var sending = socket.SendAsync(sent, WebSocketMessageType.Binary, endOfMessage: true, default);
            using var received = new MemoryStream();
            var buffer = new byte[16 * 1024];
            ValueWebSocketReceiveResult result;
            do
            {
                result = await socket.ReceiveAsync(buffer.AsMemory(), default).OrTimeout();
                received.Write(buffer, 0, result.Count);
            }
            while (!result.EndOfMessage);

            await sending.OrTimeout();
            TestData.AssertSame(sent, received.ToArray());
        }

        await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "done", default).OrTimeout();
        Assert.Equal((WebSocketState.Closed, "done"), (socket.State, socket.CloseStatusDescription));
    }

    [Theory, AllTransports(Inline, Pool, Sockets)]
    public async Task A_client_that_leaves_is_noticed_behind_the_proxy(TransportKind front, TransportKind behind)
    {
        await using var site = await Site.StartAsync(front, behind);
        using var client = site.Proxy.CreateClient();
        using var cancellation = new CancellationTokenSource();
        var waiting = client.GetAsync("/wait", cancellation.Token);
        await site.Waiting.Task.OrTimeout();

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting.OrTimeout());
        await site.GivenUp.Task.OrTimeout();
    }

    [Theory, AllTransports(Inline, Pool, Sockets)]
    public async Task Grpc_passes_both_ways_at_once(TransportKind front, TransportKind behind)
    {
        await using var server = await TalkHost.StartServerAsync(behind, HostSettings.Http2);
        await using var proxy = await StartProxyAsync(front, server.EndPoint, HttpProtocols.Http2, HttpVersion.Version20);
        using var http = proxy.CreateClient(HttpVersion.Version20);
        using var channel = GrpcChannel.ForAddress(proxy.BaseAddress, new GrpcChannelOptions { HttpClient = http });
        using var call = new Talk.TalkClient(channel).Converse();
        for (var i = 0; i < 100; i++)
        {
            var sent = new Message { Number = i, Data = ByteString.CopyFrom(TestData.Bytes(3000)) };
            await call.RequestStream.WriteAsync(sent).OrTimeout();
            Assert.True(await call.ResponseStream.MoveNext(default).OrTimeout());
            Assert.Equal(sent, call.ResponseStream.Current);
        }

        await call.RequestStream.CompleteAsync().OrTimeout();
        Assert.False(await call.ResponseStream.MoveNext(default).OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_server_that_is_not_there_is_a_bad_gateway(TransportKind front)
    {
        using var bound = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        bound.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        await using var proxy = await StartProxyAsync(front, bound.LocalEndPoint!, HttpProtocols.Http1, HttpVersion.Version11);
        using var client = proxy.CreateClient();

        using var response = await client.GetAsync("/").OrTimeout();

        Assert.Equal(HttpStatusCode.BadGateway, response.StatusCode);
    }

    private static Task<TransportHost> StartProxyAsync(TransportKind kind, EndPoint server, HttpProtocols protocols, Version version)
    {
        RouteConfig[] routes = [new() { RouteId = "all", ClusterId = "server", Match = new RouteMatch { Path = "{**all}" } }];
        ClusterConfig[] clusters =
        [
            new()
            {
                ClusterId = "server",
                Destinations = new Dictionary<string, DestinationConfig> { ["only"] = new() { Address = $"http://{server}/" } },
                HttpRequest = new ForwarderRequestConfig { Version = version, VersionPolicy = HttpVersionPolicy.RequestVersionExact },
            },
        ];
        return TransportHost.StartAsync(kind, static application => application.MapReverseProxy(), new HostSettings
        {
            Listen = listen => listen.Protocols = protocols,
            Services = services =>
            {
                services.AddReverseProxy().LoadFromMemory(routes, clusters);
                if (kind.IsEvio())
                {
                    services.AddSingleton<IForwarderHttpClientFactory>(
                        static provider => new EvioHttpClientFactory(provider.GetRequiredService<EvioTransportFactory>()));
                }
            },
        });
    }

    private sealed class EvioHttpClientFactory(EvioTransportFactory transport) : ForwarderHttpClientFactory
    {
        protected override void ConfigureHandler(ForwarderHttpClientContext context, SocketsHttpHandler handler)
        {
            base.ConfigureHandler(context, handler);
            handler.UseEvioTransport(transport);
        }
    }

    private sealed class Site : IAsyncDisposable
    {
        private TransportHost _server = null!;

        public TransportHost Proxy { get; private set; } = null!;

        public SemaphoreSlim NextPiece { get; } = new(1);

        public TaskCompletionSource Waiting { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public TaskCompletionSource GivenUp { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public static async Task<Site> StartAsync(TransportKind front, TransportKind behind)
        {
            var site = new Site();
            site._server = await TransportHost.StartAsync(behind, site.Map);
            site.Proxy = await StartProxyAsync(front, site._server.EndPoint, HttpProtocols.Http1, HttpVersion.Version11);
            return site;
        }

        public async ValueTask DisposeAsync()
        {
            await Proxy.DisposeAsync();
            await _server.DisposeAsync();
            NextPiece.Dispose();
        }

        private void Map(WebApplication application)
        {
            application.UseWebSockets();
            application.MapGet("/hello", static context => context.Response.WriteAsync(
                $"{context.Request.Method} {context.Request.Path}{context.Request.QueryString}"));
            application.MapPost("/echo", static context => context.Request.BodyReader.CopyToAsync(context.Response.BodyWriter));
            application.MapGet("/pieces", async context =>
            {
                for (var i = 0; i < 20; i++)
                {
                    await NextPiece.WaitAsync(context.RequestAborted);
                    await context.Response.WriteAsync($"{i:D6}");
                    await context.Response.Body.FlushAsync();
                }
            });
            application.MapGet("/wait", async context =>
            {
                using var registration = context.RequestAborted.UnsafeRegister(_ => GivenUp.TrySetResult(), null);
                Waiting.TrySetResult();
                await GivenUp.Task;
            });
            application.Map("/ws", static async context =>
            {
                using var socket = await context.WebSockets.AcceptWebSocketAsync();
                var buffer = new byte[8 * 1024];
                while (await socket.ReceiveAsync(buffer.AsMemory(), context.RequestAborted) is { MessageType: not WebSocketMessageType.Close } result)
                {
                    await socket.SendAsync(buffer.AsMemory(0, result.Count), result.MessageType, result.EndOfMessage, context.RequestAborted);
                }

                await socket.CloseAsync(socket.CloseStatus!.Value, socket.CloseStatusDescription, context.RequestAborted);
            });
        }
    }
}
