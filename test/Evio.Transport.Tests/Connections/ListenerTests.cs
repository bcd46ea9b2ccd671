using System.Buffers;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport.Tests.Connections;

public sealed class ListenerTests
{
    [Theory, AllTransports]
    public async Task Port_zero_becomes_the_real_port(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync(new IPEndPoint(IPAddress.Loopback, 0));

        var bound = Assert.IsType<IPEndPoint>(listener.EndPoint);
        Assert.Equal(IPAddress.Loopback, bound.Address);
        Assert.NotEqual(0, bound.Port);
        await AssertAcceptsAsync(listener);
    }

    [Theory, AllTransports]
    public async Task Every_bind_of_port_zero_gets_a_port_of_its_own(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var first = await transport.BindAsync();
        var second = await transport.BindAsync();

        Assert.NotEqual(first.EndPoint, second.EndPoint);
        await AssertAcceptsAsync(second);
        await AssertAcceptsAsync(first);
    }

    [Theory, AllTransports]
    public async Task An_IPv6_address_is_bound(TransportKind kind)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync(new IPEndPoint(IPAddress.IPv6Loopback, 0));

        var bound = Assert.IsType<IPEndPoint>(listener.EndPoint);
        Assert.Equal(IPAddress.IPv6Loopback, bound.Address);
        await AssertAcceptsAsync(listener);
    }

    [Theory, AllTransports]
    public async Task The_IPv6_wildcard_takes_clients_of_both_families(TransportKind kind)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync(new IPEndPoint(IPAddress.IPv6Any, 0));

        var bound = Assert.IsType<IPEndPoint>(listener.EndPoint);
        Assert.Equal(IPAddress.IPv6Any, bound.Address);
        await AssertAcceptsAsync(listener, new IPEndPoint(IPAddress.IPv6Loopback, bound.Port));
        await AssertAcceptsAsync(listener, new IPEndPoint(IPAddress.Loopback, bound.Port));
    }

    [Theory, AllTransports]
    public async Task The_IPv4_wildcard_is_bound(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync(new IPEndPoint(IPAddress.Any, 0));

        var bound = Assert.IsType<IPEndPoint>(listener.EndPoint);
        Assert.Equal(IPAddress.Any, bound.Address);
        await AssertAcceptsAsync(listener, new IPEndPoint(IPAddress.Loopback, bound.Port));
    }

    [Theory, AllTransports]
    public async Task A_unix_path_is_bound_and_removed_at_the_end(TransportKind kind)
    {
        using var path = new UnixSocketPath();
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync(path.EndPoint);
        Assert.Equal(path.Path, Assert.IsType<UnixDomainSocketEndPoint>(listener.EndPoint).ToString());
        Assert.True(File.Exists(path.Path));
        await AssertAcceptsAsync(listener);

        await listener.DisposeAsync().OrTimeout();

        Assert.False(File.Exists(path.Path));
    }

    [Theory, AllTransports]
    public async Task A_pending_accept_returns_null_once_unbound(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        var accept = listener.AcceptAsync().AsTask();
        Assert.False(accept.IsCompleted);

        await listener.UnbindAsync().OrTimeout();

        Assert.Null(await accept.OrTimeout());
        Assert.Null(await listener.AcceptAsync().OrTimeout());
        Assert.Null(await listener.AcceptAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_pending_accept_returns_null_once_disposed(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        var accept = listener.AcceptAsync().AsTask();

        await listener.DisposeAsync().OrTimeout();

        Assert.Null(await accept.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Unbinding_and_disposing_again_is_harmless(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();

        await listener.UnbindAsync().OrTimeout();
        await listener.UnbindAsync().OrTimeout();
        await listener.DisposeAsync().OrTimeout();
        await listener.DisposeAsync().OrTimeout();
        await listener.UnbindAsync().OrTimeout();
    }

    [Theory, AllTransports]
    public async Task An_unbound_port_refuses_clients_and_can_be_bound_again(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        var endPoint = listener.EndPoint;
        await listener.UnbindAsync().OrTimeout();

        var refused = await Assert.ThrowsAsync<SocketException>(() => SocketExtensions.ConnectAsync(endPoint));
        Assert.Equal(SocketError.ConnectionRefused, refused.SocketErrorCode);

        var again = await transport.BindAsync(endPoint);
        Assert.Equal(endPoint, again.EndPoint);
        await AssertAcceptsAsync(again);
        await listener.DisposeAsync().OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_port_can_be_bound_again_while_old_connections_live_on(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        await using var old = await ConnectedPair.ThroughAsync(listener);
        await listener.UnbindAsync().OrTimeout();

        var again = await transport.BindAsync(listener.EndPoint);

        await AssertAcceptsAsync(again);
        await old.AssertEchoesAsync();
    }

    [Theory, AllTransports]
    public async Task A_port_that_a_plain_socket_holds_is_in_use(TransportKind kind)
    {
        using var holder = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        holder.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        holder.Listen();
        await using var transport = TransportInstance.Create(kind);

        await AssertInUseAsync(transport, holder.LocalEndPoint!);
    }

    [Theory, AllTransports]
    public async Task A_port_that_the_same_transport_holds_is_in_use(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();

        await AssertInUseAsync(transport, listener.EndPoint);

        await AssertAcceptsAsync(listener);
    }

    [Theory, AllTransports]
    public async Task A_port_that_another_transport_of_the_process_holds_is_in_use(TransportKind kind)
    {
        await using var first = TransportInstance.Create(kind);
        var listener = await first.BindAsync();
        await using var second = TransportInstance.Create(kind);

        await AssertInUseAsync(second, listener.EndPoint);

        await AssertAcceptsAsync(listener);
    }

    [Theory, AllTransports]
    public async Task A_unix_path_with_a_listener_is_in_use(TransportKind kind)
    {
        using var path = new UnixSocketPath();
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync(path.EndPoint);

        await AssertInUseAsync(transport, path.EndPoint);

        await AssertAcceptsAsync(listener);
    }

    [Theory, AllTransports]
    public async Task An_address_of_another_machine_is_not_available(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);

        // TEST-NET-3 of RFC 5737: never the address of any machine.
        var foreign = new IPEndPoint(IPAddress.Parse("203.0.113.1"), 0);
        var exception = await Assert.ThrowsAsync<SocketException>(() => transport.BindAsync(foreign));

        Assert.Equal(SocketError.AddressNotAvailable, exception.SocketErrorCode);
    }

    [Theory, AllTransports]
    public async Task Clients_that_came_before_the_first_accept_are_accepted(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        using var client = await SocketExtensions.ConnectAsync(listener.EndPoint);
        await client.SendAllAsync("early");

        var connection = await listener.AcceptAsync().OrTimeout();

        var result = await connection!.Transport.Input.ReadAtLeastAsync(5).OrTimeout();
        Assert.Equal("early", Encoding.ASCII.GetString(result.Buffer));
        await connection.DisposeAsync().OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Two_hundred_clients_at_once_are_all_accepted_and_served(TransportKind kind)
    {
        const int Count = 200;
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        var connecting = Task.WhenAll(Enumerable.Range(0, Count).Select(_ => SocketExtensions.ConnectAsync(listener.EndPoint)));
        var connections = new Dictionary<EndPoint, ConnectionContext>();
        while (connections.Count < Count)
        {
            var connection = await listener.AcceptAsync().OrTimeout();
            connections.Add(connection!.RemoteEndPoint!, connection);
        }

        var clients = await connecting.OrTimeout();

        Assert.Equal(Count, connections.Values.Select(static connection => connection.ConnectionId).Distinct().Count());
        await Task.WhenAll(clients.Select(async client =>
        {
            var (input, output) = (connections[client.LocalEndPoint!].Transport.Input, connections[client.LocalEndPoint!].Transport.Output);
            var sent = TestData.Bytes(1000, seed: ((IPEndPoint)client.LocalEndPoint!).Port);
            await client.SendAllAsync(sent);
            var result = await input.ReadAtLeastAsync(sent.Length);
            await output.WriteAsync(result.Buffer.ToArray());
            input.AdvanceTo(result.Buffer.End);
            TestData.AssertSame(sent, await client.ReceiveExactlyAsync(sent.Length));
            client.Dispose();
        })).OrTimeout();
        await Task.WhenAll(connections.Values.Select(static connection => connection.DisposeAsync().AsTask())).OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Unbinding_keeps_accepted_connections_working(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        await using var pair = await ConnectedPair.ThroughAsync(listener);

        await listener.UnbindAsync().OrTimeout();

        await pair.AssertEchoesAsync();
    }

    [Theory, AllTransports]
    public async Task Clients_that_were_never_accepted_are_let_go_with_the_listener(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        using var client = await SocketExtensions.ConnectAsync(listener.EndPoint);

        await listener.DisposeAsync().OrTimeout();

        // By a FIN or a reset: which depends on whether the kernel or the transport held the connection.
        try
        {
            Assert.Equal(0, await client.ReceiveAsync(new byte[1]).OrTimeout());
        }
        catch (SocketException exception)
        {
            Assert.Equal(SocketError.ConnectionReset, exception.SocketErrorCode);
        }
    }

    [Theory, AllTransports]
    public async Task A_cancelled_token_ends_the_accept_and_loses_no_client(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => listener.AcceptAsync(new CancellationToken(true)).OrTimeout());

        using var source = new CancellationTokenSource();
        var accept = listener.AcceptAsync(source.Token).AsTask();
        await source.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => accept.OrTimeout());

        await AssertAcceptsAsync(listener);
    }

    [Theory, AllTransports]
    public async Task The_factory_says_which_end_points_it_can_bind(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var selector = Assert.IsType<IConnectionListenerFactorySelector>(transport.Factory, exactMatch: false);

        Assert.True(selector.CanBind(new IPEndPoint(IPAddress.Loopback, 0)));
        Assert.True(selector.CanBind(new IPEndPoint(IPAddress.IPv6Loopback, 0)));
        Assert.True(selector.CanBind(new UnixDomainSocketEndPoint("/tmp/any")));
        Assert.False(selector.CanBind(new NamedPipeEndPoint("any")));
    }

    /// <summary>Such a type is a factory's of its own, which does more than bind its address: ASP.NET Core's for TLS, for example.</summary>
    [Theory, EvioTransports]
    public async Task End_points_of_derived_types_are_left_to_other_factories(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var selector = Assert.IsType<IConnectionListenerFactorySelector>(transport.Factory, exactMatch: false);

        Assert.False(selector.CanBind(new DerivedIPEndPoint()));
        Assert.False(selector.CanBind(new DerivedFileHandleEndPoint()));
        await Assert.ThrowsAsync<NotSupportedException>(() => transport.BindAsync(new DerivedIPEndPoint()));
    }

    private static async Task AssertInUseAsync(TransportInstance transport, EndPoint endPoint)
    {
        var exception = await Assert.ThrowsAsync<AddressInUseException>(() => transport.BindAsync(endPoint));
        Assert.Equal(SocketError.AddressAlreadyInUse, Assert.IsType<SocketException>(exception.InnerException).SocketErrorCode);
    }

    private static async Task AssertAcceptsAsync(IConnectionListener listener, EndPoint? endPoint = null)
    {
        await using var pair = await ConnectedPair.ThroughAsync(listener, endPoint);
        await pair.AssertEchoesAsync();
    }

    private sealed class DerivedIPEndPoint() : IPEndPoint(IPAddress.Loopback, 0);

    private sealed class DerivedFileHandleEndPoint() : FileHandleEndPoint(0, FileHandleType.Auto);
}
