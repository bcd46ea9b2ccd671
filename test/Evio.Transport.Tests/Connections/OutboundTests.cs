using System.Net;
using System.Net.Sockets;
using System.Reflection;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Tests.Connections;

/// <summary>The client side: connections that the factory makes, against plain sockets.</summary>
public sealed class OutboundTests
{
    [Theory, EvioTransports(false, true)]
    public async Task Bytes_go_both_ways(TransportKind kind, bool unix)
    {
        await using var site = new Site(kind, unix);
        var (connection, peer) = await site.ConnectAsync();

        var sent = TestData.Bytes(100_000);
        var receive = peer.ReceiveExactlyAsync(sent.Length);
        await connection.Transport.Output.WriteAsync(sent).OrTimeout();
        TestData.AssertSame(sent, await receive.OrTimeout());

        var answer = TestData.Bytes(100_000, seed: 2);
        var send = peer.SendAllAsync(answer);
        var result = await connection.Transport.Input.ReadAtLeastAsync(answer.Length).OrTimeout();
        await send.OrTimeout();
        TestData.AssertSame(answer, System.Buffers.BuffersExtensions.ToArray(result.Buffer));
        connection.Transport.Input.AdvanceTo(result.Buffer.End);
    }

    [Theory, EvioTransports(false, true)]
    public async Task It_knows_its_addresses_and_has_an_id_and_a_socket(TransportKind kind, bool unix)
    {
        await using var site = new Site(kind, unix);
        var (connection, peer) = await site.ConnectAsync();

        Assert.Equal(peer.LocalEndPoint!.ToString(), connection.RemoteEndPoint!.ToString());
        Assert.Equal(peer.RemoteEndPoint!.ToString(), connection.LocalEndPoint!.ToString());
        Assert.Equal(13, connection.ConnectionId.Length);
        var socket = connection.Features.Get<Microsoft.AspNetCore.Connections.Features.IConnectionSocketFeature>()!.Socket;
        Assert.Equal(unix ? AddressFamily.Unix : AddressFamily.InterNetwork, socket.AddressFamily);
    }

    [Theory, EvioTransports]
    public async Task The_peers_FIN_ends_the_input_and_the_output_goes_on(TransportKind kind)
    {
        await using var site = new Site(kind);
        var (connection, peer) = await site.ConnectAsync();

        peer.Shutdown(SocketShutdown.Send);

        Assert.True((await connection.Transport.Input.ReadAsync().OrTimeout()).IsCompleted);
        await connection.ConnectionClosed.WhenCancelled();
        var receive = peer.ReceiveExactlyAsync(5);
        await connection.Transport.Output.WriteAsync("hello"u8.ToArray()).OrTimeout();
        TestData.AssertSame("hello"u8.ToArray(), await receive.OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task The_peers_reset_is_a_reset(TransportKind kind)
    {
        await using var site = new Site(kind);
        var (connection, peer) = await site.ConnectAsync();

        peer.Reset();

        await Assert.ThrowsAsync<ConnectionResetException>(async () => await connection.Transport.Input.ReadAsync()).OrTimeout();
        await connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, EvioTransports]
    public async Task An_abort_resets(TransportKind kind)
    {
        await using var site = new Site(kind);
        var (connection, peer) = await site.ConnectAsync();

        connection.Abort(new ConnectionAbortedException("no"));

        Assert.Equal(SocketError.ConnectionReset, await peer.ReceiveErrorAsync().OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task Disposal_sends_everything_and_then_FIN(TransportKind kind)
    {
        await using var site = new Site(kind);
        var (connection, peer) = await site.ConnectAsync();
        var sent = TestData.Bytes(3_000_000);

        var write = connection.Transport.Output.WriteAsync(sent);
        var received = peer.ReceiveToEndAsync();
        await write.OrTimeout();
        await connection.DisposeAsync().OrTimeout();

        TestData.AssertSame(sent, await received.OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task A_port_where_nobody_listens_refuses(TransportKind kind)
    {
        await using var site = new Site(kind);
        var endPoint = site.Peer.LocalEndPoint!;
        site.Peer.Dispose();

        var exception = await Assert.ThrowsAsync<SocketException>(async () => await site.Factory.ConnectAsync(endPoint)).OrTimeout();

        Assert.Equal(SocketError.ConnectionRefused, exception.SocketErrorCode);
    }

    [Theory, EvioTransports]
    public async Task A_host_that_does_not_answer_in_time_is_a_time_out(TransportKind kind)
    {
        using var silent = new SilentListener();
        await using var site = new Site(kind, configure: static options => options.ConnectTimeout = TimeSpan.FromMilliseconds(50));

        var exception = await Assert.ThrowsAsync<SocketException>(async () => await site.Factory.ConnectAsync(silent.EndPoint)).OrTimeout();

        Assert.Equal(SocketError.TimedOut, exception.SocketErrorCode);
        Assert.Contains(nameof(EvioTransportOptions.ConnectTimeout), exception.Message, StringComparison.Ordinal);
    }

    [Theory, EvioTransports]
    public async Task A_silent_address_of_a_host_has_its_time_and_the_next_is_tried(TransportKind kind)
    {
        using var silent = new SilentListener();
        var port = ((IPEndPoint)silent.EndPoint).Port;
        using var peer = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        peer.Bind(new IPEndPoint(IPAddress.Parse("127.0.0.2"), port));
        peer.Listen();
        await using var site = new Site(kind, configure: static options => options.ConnectTimeout = TimeSpan.FromMilliseconds(50));
        _ = await site.ConnectAsync();
        Resolve(site.Factory, IPAddress.Loopback, IPAddress.Parse("127.0.0.2"));

        await using var connection = await site.Factory.ConnectAsync(new DnsEndPoint("two.test", port)).OrTimeout();

        Assert.Equal(peer.LocalEndPoint, connection.RemoteEndPoint);
    }

    /// <summary>Has the transport's resolver answer with these addresses. Nobody else needs to, so it is looked up by name.</summary>
    private static void Resolve(EvioTransportFactory factory, params IPAddress[] addresses)
    {
        const BindingFlags Any = BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.Public;
        var loops = typeof(EvioTransportFactory).GetField("_loops", Any)!.GetValue(factory)!;
        var group = loops.GetType().GetProperty("Group", Any)!.GetValue(loops)!;
        var resolve = group.GetType().GetProperty("Resolve", Any)!;
        Func<string, AddressFamily, CancellationToken, Task<IPAddress[]>> answer = (_, _, _) => Task.FromResult(addresses);
        resolve.SetValue(group, Delegate.CreateDelegate(resolve.PropertyType, answer, "Invoke"));
    }

    [Theory, EvioTransports]
    public async Task An_attempt_can_be_cancelled(TransportKind kind)
    {
        using var silent = new SilentListener();
        using var cancellation = new CancellationTokenSource();
        await using var site = new Site(kind);

        var attempt = site.Factory.ConnectAsync(silent.EndPoint, cancellation.Token).AsTask();
        Assert.False(attempt.IsCompleted);
        await cancellation.CancelAsync();

        var exception = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => attempt).OrTimeout();
        Assert.Equal(cancellation.Token, exception.CancellationToken);
    }

    [Theory, EvioTransports]
    public async Task An_end_point_of_another_kind_is_refused(TransportKind kind)
    {
        await using var site = new Site(kind);

        await Assert.ThrowsAsync<ArgumentException>(async () => await site.Factory.ConnectAsync(new FileHandleEndPoint(0, FileHandleType.Tcp))).OrTimeout();
    }

    [Theory, EvioTransports]
    public async Task The_factorys_end_aborts_what_is_open_and_gives_every_block_back(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var site = new Site(kind, configureServices: services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools));
        var (connection, peer) = await site.ConnectAsync();
        await peer.SendAllAsync("unread").OrTimeout();
        var result = await connection.Transport.Input.ReadAsync().OrTimeout();
        connection.Transport.Input.AdvanceTo(result.Buffer.Start);
        Assert.NotEqual(0, pools.Outstanding);

        await site.DisposeFactoryAsync();

        await connection.ConnectionClosed.WhenCancelled();
        await connection.DisposeAsync().OrTimeout();
        Assert.Equal(0, pools.Outstanding);
        Assert.Equal(0, pools.DoubleReturns);
        await Assert.ThrowsAsync<ObjectDisposedException>(async () => await site.Factory.ConnectAsync(site.Peer.LocalEndPoint!)).OrTimeout();
    }

    [Theory, EvioTransports]
    public async Task Many_connections_at_once_keep_their_bytes_apart(TransportKind kind)
    {
        const int Count = 100;
        await using var site = new Site(kind);
        var serve = Task.WhenAll(Enumerable.Range(0, Count).Select(async _ =>
        {
            using var peer = await site.Peer.AcceptAsync();
            await peer.SendAllAsync(await peer.ReceiveExactlyAsync(1000));
            Assert.Empty(await peer.ReceiveToEndAsync());
        }));

        await Task.WhenAll(Enumerable.Range(0, Count).Select(async i =>
        {
            await using var connection = await site.Factory.ConnectAsync(site.Peer.LocalEndPoint!);
            var sent = TestData.Bytes(1000, seed: i);
            await connection.Transport.Output.WriteAsync(sent);
            var result = await connection.Transport.Input.ReadAtLeastAsync(sent.Length);
            TestData.AssertSame(sent, System.Buffers.BuffersExtensions.ToArray(result.Buffer));
            connection.Transport.Input.AdvanceTo(result.Buffer.End);
        })).OrTimeout();
        await serve.OrTimeout();
    }

    [Fact]
    public async Task The_container_gives_the_transport_as_the_connection_factory_unless_it_has_another()
    {
        await using var own = new ServiceCollection().AddLogging().AddEvioTransport().BuildServiceProvider();
        Assert.Same(own.GetRequiredService<EvioTransportFactory>(), own.GetRequiredService<IConnectionFactory>());

        var other = new NoConnections();
        await using var others = new ServiceCollection().AddLogging().AddSingleton<IConnectionFactory>(other).AddEvioTransport().BuildServiceProvider();
        Assert.Same(other, others.GetRequiredService<IConnectionFactory>());
    }

    private sealed class NoConnections : IConnectionFactory
    {
        public ValueTask<ConnectionContext> ConnectAsync(EndPoint endpoint, CancellationToken cancellationToken = default) =>
            throw new NotSupportedException();
    }

    /// <summary>A factory, a plain listening socket, and the connections between them.</summary>
    private sealed class Site : IAsyncDisposable
    {
        private readonly UnixSocketPath? _path;
        private readonly ServiceProvider _services;
        private readonly List<(ConnectionContext Connection, Socket Peer)> _pairs = [];

        internal Site(
            TransportKind kind,
            bool unix = false,
            Action<EvioTransportOptions>? configure = null,
            Action<IServiceCollection>? configureServices = null)
        {
            _path = unix ? new UnixSocketPath() : null;
            Peer = new Socket(unix ? AddressFamily.Unix : AddressFamily.InterNetwork, SocketType.Stream, unix ? ProtocolType.Unspecified : ProtocolType.Tcp);
            Peer.Bind(_path?.EndPoint ?? (EndPoint)new IPEndPoint(IPAddress.Loopback, 0));
            Peer.Listen();
            var services = new ServiceCollection().AddLogging().AddEvioTransport(options =>
            {
                options.Scheduling = kind.Scheduling();
                configure?.Invoke(options);
            });
            configureServices?.Invoke(services);
            _services = services.BuildServiceProvider();
            Factory = _services.GetRequiredService<EvioTransportFactory>();
        }

        internal Socket Peer { get; }

        internal EvioTransportFactory Factory { get; }

        internal async Task<(ConnectionContext Connection, Socket Peer)> ConnectAsync()
        {
            var accept = Peer.AcceptAsync();
            var connection = await Factory.ConnectAsync(Peer.LocalEndPoint!).OrTimeout();
            var pair = (connection, await accept.OrTimeout());
            _pairs.Add(pair);
            return pair;
        }

        internal Task DisposeFactoryAsync() => Factory.DisposeAsync().OrTimeout();

        public async ValueTask DisposeAsync()
        {
            foreach (var (connection, peer) in _pairs)
            {
                peer.Dispose();
                await connection.DisposeAsync().OrTimeout();
            }

            await _services.DisposeAsync().OrTimeout();
            Peer.Dispose();
            _path?.Dispose();
        }
    }
}
