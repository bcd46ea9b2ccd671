using System.Net;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class EndPointTests
{
    [Theory, AllTransports]
    public async Task HTTP_works_over_a_unix_socket_whose_path_is_gone_after_the_stop(TransportKind kind)
    {
        using var path = new UnixSocketPath();
        await using (var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings { EndPoint = path.EndPoint }))
        {
            using var client = host.CreateClient();
            await AssertEchoesAsync(client);
            await host.StopAsync().OrTimeout();
        }

        Assert.False(File.Exists(path.Path));
    }

    [Theory, AllTransports]
    public async Task HTTP_works_over_IPv6(TransportKind kind)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync(context.Connection.RemoteIpAddress!.ToString()),
            new HostSettings { EndPoint = new IPEndPoint(IPAddress.IPv6Loopback, 0) });
        using var client = host.CreateClient();

        Assert.Equal("::1", await client.GetStringAsync("/").OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Listening_on_any_IP_serves_both_families(TransportKind kind)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync(context.Connection.RemoteIpAddress!.ToString()),
            new HostSettings { EndPoint = new IPEndPoint(IPAddress.IPv6Any, 0) });
        var port = ((IPEndPoint)host.EndPoint).Port;
        using var client = new HttpClient();

        Assert.Equal("::1", await client.GetStringAsync($"http://[::1]:{port}/").OrTimeout());
        Assert.Equal("::ffff:127.0.0.1", await client.GetStringAsync($"http://127.0.0.1:{port}/").OrTimeout());
    }

    [Theory, AllTransports]
    public async Task One_host_serves_several_end_points(TransportKind kind)
    {
        using var path = new UnixSocketPath();
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings
        {
            Kestrel = options =>
            {
                options.Listen(path.EndPoint, static listen => listen.UseConnectionHandler<Applications.RawEcho>());
                options.Listen(IPAddress.Loopback, 0, static listen => listen.Protocols = HttpProtocols.Http2);
            },
            EndPoint = new IPEndPoint(IPAddress.Loopback, 0),
        });
        var ports = host.Addresses.Where(static address => address.Host == "127.0.0.1").Select(static address => address.Port).ToArray();
        Assert.Equal(2, ports.Distinct().Count());

        using var raw = await SocketExtensions.ConnectAsync(path.EndPoint);
        await raw.SendAllAsync("raw").OrTimeout();
        Assert.Equal("raw"u8.ToArray(), await raw.ReceiveExactlyAsync(3).OrTimeout());

        using var http2 = host.CreateClient(HttpVersion.Version20, new IPEndPoint(IPAddress.Loopback, ports[0]));
        await AssertEchoesAsync(http2);
        using var http1 = host.CreateClient(HttpVersion.Version11, new IPEndPoint(IPAddress.Loopback, ports[1]));
        await AssertEchoesAsync(http1);
    }

    [Theory, AllTransports]
    public async Task A_busy_port_fails_the_start_as_Kestrel_does(TransportKind kind)
    {
        using var holder = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        holder.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        holder.Listen();

        var exception = await Assert.ThrowsAsync<IOException>(
            () => TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings { EndPoint = holder.LocalEndPoint! }));

        Assert.Contains("address already in use", exception.Message, StringComparison.OrdinalIgnoreCase);
        Assert.IsType<AddressInUseException>(exception.InnerException);
    }

    [Theory, AllTransports]
    public async Task A_port_of_another_host_of_the_process_fails_the_start_as_well(TransportKind kind)
    {
        await using var first = await TransportHost.StartAsync(kind, Applications.EchoAsync);

        await Assert.ThrowsAsync<IOException>(
            () => TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings { EndPoint = first.EndPoint }));

        using var client = first.CreateClient();
        await AssertEchoesAsync(client);
    }

    [Theory, AllTransports]
    public async Task A_host_can_be_started_again_on_the_same_port_at_once(TransportKind kind)
    {
        EndPoint endPoint = new IPEndPoint(IPAddress.Loopback, 0);
        for (var i = 0; i < 5; i++)
        {
            await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings { EndPoint = endPoint });
            endPoint = host.EndPoint;
            using var client = host.CreateClient();
            await AssertEchoesAsync(client);

            // With the keep-alive connection still open, so that the server is the side that closes and keeps TIME_WAIT.
            await host.StopAsync().OrTimeout();
        }
    }

    [Theory, AllTransports]
    public async Task Two_hosts_run_side_by_side(TransportKind kind)
    {
        await using var first = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("first"));
        await using var second = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("second"));
        using var clientOfFirst = first.CreateClient();
        using var clientOfSecond = second.CreateClient();
        Assert.Equal("first", await clientOfFirst.GetStringAsync("/").OrTimeout());

        await first.StopAsync().OrTimeout();
        await first.DisposeAsync();

        Assert.Equal("second", await clientOfSecond.GetStringAsync("/").OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task Evio_serves_though_the_Sockets_factory_is_registered_as_well(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static context =>
        {
            var loops = context.RequestServices.GetRequiredService<EvioTransportFactory>().Loops;
            return context.Response.WriteAsync($"{loops.Sum(static loop => loop.ConnectionCount)} on evio");
        });
        Assert.Contains(host.Services.GetServices<IConnectionListenerFactory>(), static factory => factory is SocketTransportFactory);
        using var client = host.CreateClient();

        Assert.Equal("1 on evio", await client.GetStringAsync("/").OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task End_points_that_evio_cannot_bind_go_to_another_factory(TransportKind kind)
    {
        var other = new OtherFactory();
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings
        {
            Kestrel = static options => options.Listen(new OtherEndPoint()),
            Services = services => services.Insert(0, ServiceDescriptor.Singleton<IConnectionListenerFactory>(other)),
        });
        using var client = host.CreateClient();

        await AssertEchoesAsync(client);
        Assert.IsType<OtherEndPoint>(Assert.Single(other.Bound));
    }

    [Theory, EvioTransports]
    public async Task An_option_out_of_range_stops_the_start_by_name(TransportKind kind)
    {
        var exception = await Assert.ThrowsAsync<OptionsValidationException>(() => TransportHost.StartAsync(
            kind, Applications.EchoAsync, new HostSettings { Transport = new TransportSettings { LoopCount = 5000 } }));

        Assert.Contains("LoopCount is 5000", exception.Message, StringComparison.Ordinal);
    }

    private static async Task AssertEchoesAsync(HttpClient client)
    {
        using var response = await client.PostAsync("/", new StringContent("echo")).OrTimeout();
        Assert.Equal("echo", await response.Content.ReadAsStringAsync().OrTimeout());
    }

    private sealed class OtherEndPoint : EndPoint
    {
        public override string ToString() => "other";
    }

    private sealed class OtherFactory : IConnectionListenerFactory, IConnectionListenerFactorySelector
    {
        public List<EndPoint> Bound { get; } = [];

        public bool CanBind(EndPoint endpoint) => endpoint is OtherEndPoint;

        public ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default)
        {
            Bound.Add(endpoint);
            return ValueTask.FromResult<IConnectionListener>(new Listener(endpoint));
        }

        private sealed class Listener(EndPoint endPoint) : IConnectionListener
        {
            private readonly TaskCompletionSource<ConnectionContext?> _unbound = new(TaskCreationOptions.RunContinuationsAsynchronously);

            public EndPoint EndPoint => endPoint;

            public ValueTask<ConnectionContext?> AcceptAsync(CancellationToken cancellationToken = default) => new(_unbound.Task);

            public ValueTask UnbindAsync(CancellationToken cancellationToken = default)
            {
                _unbound.TrySetResult(null);
                return ValueTask.CompletedTask;
            }

            public ValueTask DisposeAsync() => UnbindAsync();
        }
    }
}
