using System.Net;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
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
        for (var i = 0; i < 20; i++)
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

    [Theory, AllTransports]
    public async Task End_points_of_another_kind_are_served_by_their_own_factory_beside_this_one(TransportKind kind)
    {
        using var path = new UnixSocketPath();
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync(context.Features.Get<OtherFeature>() is null ? "own" : "other"),
            new HostSettings
            {
                Kestrel = options => options.Listen(new OtherEndPoint(path.EndPoint), static listen => listen.Protocols = HttpProtocols.Http1),
                Services = static services => services.Insert(0, ServiceDescriptor.Singleton<IConnectionListenerFactory, OtherFactory>()),
            });
        using var client = host.CreateClient();
        using var clientOfOther = host.CreateClient(endPoint: path.EndPoint);

        Assert.Equal("own", await client.GetStringAsync("/").OrTimeout());
        Assert.Equal("other", await clientOfOther.GetStringAsync("/").OrTimeout());

        await host.StopAsync().OrTimeout();
        Assert.False(File.Exists(path.Path));
    }

    [Theory, EvioTransports]
    public async Task A_host_on_the_Sockets_transport_runs_beside_one_on_evio(TransportKind kind)
    {
        await using var sockets = await TransportHost.StartAsync(TransportKind.Sockets, Applications.EchoAsync);
        await using var evio = await TransportHost.StartAsync(kind, Applications.EchoAsync);
        using var clientOfSockets = sockets.CreateClient();
        using var clientOfEvio = evio.CreateClient();
        await AssertEchoesAsync(clientOfSockets);
        await AssertEchoesAsync(clientOfEvio);

        await Assert.ThrowsAsync<IOException>(
            () => TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings { EndPoint = sockets.EndPoint }));
        await Assert.ThrowsAsync<IOException>(
            () => TransportHost.StartAsync(TransportKind.Sockets, Applications.EchoAsync, new HostSettings { EndPoint = evio.EndPoint }));
        await evio.StopAsync().OrTimeout();

        await AssertEchoesAsync(clientOfSockets);
    }

    [Theory, AllTransports]
    public async Task Localhost_is_served_on_both_families(TransportKind kind)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        var (host, port) = await OnFreePortAsync(kind, static (options, port) => options.ListenLocalhost(port));
        await using (host)
        {
            foreach (var address in new[] { IPAddress.Loopback, IPAddress.IPv6Loopback })
            {
                using var client = host.CreateClient(endPoint: new IPEndPoint(address, port));
                await AssertEchoesAsync(client);
            }
        }
    }

    [Theory, AllTransports]
    public async Task Any_IP_is_served_on_both_families(TransportKind kind)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        var (host, port) = await OnFreePortAsync(kind, static (options, port) => options.ListenAnyIP(port));
        await using (host)
        {
            foreach (var address in new[] { IPAddress.Loopback, IPAddress.IPv6Loopback })
            {
                using var client = host.CreateClient(endPoint: new IPEndPoint(address, port));
                await AssertEchoesAsync(client);
            }
        }
    }

    [Theory, AllTransports("localhost, IPv4", "localhost, IPv6", "any, IPv4", "any, IPv6")]
    public async Task A_port_that_is_busy_in_one_family_fails_the_start(TransportKind kind, string where)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        using var holder = new Socket(
            where.EndsWith("IPv6", StringComparison.Ordinal) ? AddressFamily.InterNetworkV6 : AddressFamily.InterNetwork,
            SocketType.Stream,
            ProtocolType.Tcp);
        var loopback = where.StartsWith("localhost", StringComparison.Ordinal);
        holder.Bind(new IPEndPoint(
            holder.AddressFamily is AddressFamily.InterNetwork
                ? loopback ? IPAddress.Loopback : IPAddress.Any
                : loopback ? IPAddress.IPv6Loopback : IPAddress.IPv6Any,
            0));
        holder.Listen();
        var port = ((IPEndPoint)holder.LocalEndPoint!).Port;

        var exception = await Assert.ThrowsAsync<IOException>(() => TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings
        {
            Kestrel = options =>
            {
                if (loopback)
                {
                    options.ListenLocalhost(port);
                }
                else
                {
                    options.ListenAnyIP(port);
                }
            },
        }));

        Assert.IsType<AddressInUseException>(exception.InnerException);
    }

    public enum Inherited
    {
        Tcp,
        Tcp6,
        Unix,

        /// <summary>Bound, but not listening yet.</summary>
        Bound,
    }

    [Theory, AllTransports(Inherited.Tcp, Inherited.Tcp6, Inherited.Unix, Inherited.Bound)]
    public async Task An_inherited_descriptor_is_served(TransportKind kind, Inherited inherited)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6 || inherited is not Inherited.Tcp6, "This machine has no IPv6.");
        using var path = new UnixSocketPath();
        EndPoint asked = inherited switch
        {
            Inherited.Unix => path.EndPoint,
            Inherited.Tcp6 => new IPEndPoint(IPAddress.IPv6Loopback, 0),
            _ => new IPEndPoint(IPAddress.Loopback, 0),
        };
        using var listener = new Socket(asked.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(asked);
        if (inherited is not Inherited.Bound)
        {
            listener.Listen();
        }

        var settings = new HostSettings { EndPoint = new FileHandleEndPoint((ulong)listener.Handle, FileHandleType.Auto) };

        // The runtime's sockets can take over a descriptor once per process, evio again and again.
        for (var i = 0; i < (kind.IsEvio() ? 3 : 1); i++)
        {
            await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, settings);
            for (var j = 0; j < 3; j++)
            {
                using var client = host.CreateClient(endPoint: listener.LocalEndPoint);
                await AssertEchoesAsync(client);
            }

            await host.StopAsync().OrTimeout();
        }

        // It stays its creator's, and listens.
        using var late = await SocketExtensions.ConnectAsync(listener.LocalEndPoint!);
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

    /// <summary>For what cannot be bound to port 0: asks the system for a free port, which somebody else may take first.</summary>
    private static async Task<(TransportHost Host, int Port)> OnFreePortAsync(TransportKind kind, Action<KestrelServerOptions, int> listen)
    {
        for (var attempt = 1; ; attempt++)
        {
            int port;
            using (var free = new Socket(AddressFamily.InterNetworkV6, SocketType.Stream, ProtocolType.Tcp))
            {
                free.Bind(new IPEndPoint(IPAddress.IPv6Any, 0));
                port = ((IPEndPoint)free.LocalEndPoint!).Port;
            }

            try
            {
                return (
                    await TransportHost.StartAsync(
                        kind, Applications.EchoAsync, new HostSettings { Kestrel = options => listen(options, port) }),
                    port);
            }
            catch (IOException exception) when (exception.InnerException is AddressInUseException && attempt < 20)
            {
                // Another port.
            }
        }
    }

    private sealed class OtherFeature;

    private sealed class OtherEndPoint(UnixDomainSocketEndPoint real) : EndPoint
    {
        public UnixDomainSocketEndPoint Real => real;

        public override string ToString() => "other";
    }

    /// <summary>A factory for an end point that no other knows. Beneath, it is the Sockets transport.</summary>
    private sealed class OtherFactory(ILoggerFactory loggers) : IConnectionListenerFactory, IConnectionListenerFactorySelector
    {
        private readonly SocketTransportFactory _sockets = new(Options.Create(new SocketTransportOptions()), loggers);

        public bool CanBind(EndPoint endpoint) => endpoint is OtherEndPoint;

        public async ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default) =>
            new Listener(await _sockets.BindAsync(((OtherEndPoint)endpoint).Real, cancellationToken), endpoint);

        private sealed class Listener(IConnectionListener inner, EndPoint endPoint) : IConnectionListener
        {
            public EndPoint EndPoint => endPoint;

            public async ValueTask<ConnectionContext?> AcceptAsync(CancellationToken cancellationToken = default)
            {
                var connection = await inner.AcceptAsync(cancellationToken);
                connection?.Features.Set(new OtherFeature());
                return connection;
            }

            public ValueTask UnbindAsync(CancellationToken cancellationToken = default) => inner.UnbindAsync(cancellationToken);

            public ValueTask DisposeAsync() => inner.DisposeAsync();
        }
    }
}
