using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

public sealed class StreamListenerTests
{
    private const int SOL_SOCKET = 1;
    private const int SO_REUSEPORT = 15;

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public async Task Port_0_becomes_the_port_that_the_kernel_chose(int loops)
    {
        await using var group = new TestGroup(loops);
        await using var server = await Server.StartAsync(group);

        var endPoint = Assert.IsType<IPEndPoint>(server.EndPoint);
        Assert.Equal(IPAddress.Loopback, endPoint.Address);
        Assert.NotEqual(0, endPoint.Port);
        var (client, handler) = server.Open();
        Assert.Equal(client.LocalEndPoint, handler.Socket.RemoteEndPoint);
        Assert.Equal(client.RemoteEndPoint, handler.Socket.LocalEndPoint);
    }

    [Fact]
    public async Task A_wildcard_address_has_connections_with_addresses_of_their_own()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group, new IPEndPoint(IPAddress.Any, 0));

        using var client = Server.Dial(new IPEndPoint(IPAddress.Loopback, Port(server)));

        Assert.Equal(client.RemoteEndPoint, server.NextAccepted().Socket.LocalEndPoint);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task The_IPv6_wildcard_takes_both_families(int loops)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        await using var group = new TestGroup(loops);
        await using var server = await Server.StartAsync(group, new IPEndPoint(IPAddress.IPv6Any, 0));

        using var four = Server.Dial(new IPEndPoint(IPAddress.Loopback, Port(server)));
        var mapped = Assert.IsType<IPEndPoint>(server.NextAccepted().Socket.RemoteEndPoint);
        using var six = Server.Dial(new IPEndPoint(IPAddress.IPv6Loopback, Port(server)));
        var plain = Assert.IsType<IPEndPoint>(server.NextAccepted().Socket.RemoteEndPoint);

        Assert.Equal(IPAddress.Loopback.MapToIPv6(), mapped.Address);
        Assert.Equal(six.LocalEndPoint, plain);
    }

    [Fact]
    public async Task One_IPv6_address_takes_that_family_only()
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group, new IPEndPoint(IPAddress.IPv6Loopback, 0));

        server.Open();

        // The IPv4 port of the same number may be somebody else's, but it is not ours.
        await using var other = new TestGroup();
        await using var four = await Server.StartAsync(other, new IPEndPoint(IPAddress.Loopback, Port(server)));
        four.Open();
        Assert.Equal(1, server.AcceptedCount);
    }

    [Theory]
    [InlineData(false, 1)]
    [InlineData(false, 3)]
    [InlineData(true, 1)]
    [InlineData(true, 3)]
    public async Task A_port_that_another_socket_listens_on_is_refused(bool otherShares, int loops)
    {
        using var other = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        if (otherShares)
        {
            other.SetRawSocketOption(SOL_SOCKET, SO_REUSEPORT, BitConverter.GetBytes(1));
        }

        other.Bind(Server.Loopback);
        other.Listen();
        await using var group = new TestGroup(loops);

        await AssertInUseAsync(group, other.LocalEndPoint!);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(1, 3)]
    [InlineData(3, 1)]
    [InlineData(3, 3)]
    public async Task A_port_of_another_group_is_refused(int loops, int otherLoops)
    {
        await using var other = new TestGroup(otherLoops);
        await using var server = await Server.StartAsync(other);
        await using var group = new TestGroup(loops);

        await AssertInUseAsync(group, server.EndPoint);

        // And the other's connections are all its own.
        for (var i = 0; i < 20; i++)
        {
            server.Open();
        }
    }

    [Fact]
    public async Task A_port_of_the_same_group_is_refused()
    {
        await using var group = new TestGroup(loops: 2);
        await using var server = await Server.StartAsync(group);

        await AssertInUseAsync(group, server.EndPoint);
    }

    [Fact]
    public async Task Of_groups_that_bind_a_port_at_the_same_time_only_one_gets_it()
    {
        const int Rounds = 300;
        await using var first = new TestGroup(loops: 2);
        await using var second = new TestGroup(loops: 2);
        var bound = 0;
        for (var round = 0; round < Rounds; round++)
        {
            var endPoint = FreeEndPoint();
            var listeners = new StreamListener?[2];
            Waiting.InParallel(2, i =>
            {
                try
                {
                    listeners[i] = (i == 0 ? first : second).Group.ListenAsync(endPoint, static socket => socket.Close()).GetAwaiter().GetResult();
                }
                catch (SocketException exception) when (exception.SocketErrorCode == SocketError.AddressAlreadyInUse)
                {
                    // The other was faster.
                }
            });

            foreach (var listener in listeners.OfType<StreamListener>())
            {
                await listener.CloseAsync().Within();
            }

            // None is possible: the kernel lets a socket listen for a moment before it looks for others, and two may see each other.
            var count = listeners.Count(static listener => listener is not null);
            Assert.True(count < 2, $"Both groups have {endPoint} in round {round}.");
            bound += count;
        }

        Assert.True(bound > Rounds / 2, $"The port was refused to both in {Rounds - bound} of {Rounds} rounds.");
    }

    [Fact]
    public async Task A_refused_port_costs_no_descriptor()
    {
        await using var group = new TestGroup(loops: 4);
        await using var server = await Server.StartAsync(group);
        var before = ProcessState.SocketsAndPollers();

        await AssertInUseAsync(group, server.EndPoint);

        Assert.Empty(ProcessState.OpenedSince(before));
    }

    [Fact]
    public async Task A_port_is_free_again_at_once_after_its_listener_closed()
    {
        await using var group = new TestGroup(loops: 2);
        EndPoint endPoint = Server.Loopback;
        for (var i = 0; i < 20; i++)
        {
            await using var server = await Server.StartAsync(group, endPoint);
            endPoint = server.EndPoint;

            // The server closes first, and so keeps the address in TIME_WAIT.
            var (client, handler) = server.Open();
            handler.Socket.Close();
            Assert.Equal(0, client.Receive(new byte[1]));
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public async Task A_shared_port_is_served_by_both_groups(int loops)
    {
        var sharing = new StreamListenerOptions { SharePort = true };
        await using var first = new TestGroup(loops);
        await using var second = new TestGroup(loops);
        await using var server1 = await Server.StartAsync(first, options: sharing);
        await using var server2 = await Server.StartAsync(second, server1.EndPoint, sharing);

        // The kernel spreads them by a hash of the client's port.
        Waiting.Until(() =>
        {
            server1.Connect();
            return server1.AcceptedCount > 0 && server2.AcceptedCount > 0;
        });
    }

    [Fact]
    public async Task An_address_of_another_machine_is_refused()
    {
        await using var group = new TestGroup();

        // TEST-NET-3 (RFC 5737).
        var exception = await Assert.ThrowsAsync<SocketException>(
            () => group.ListenAsync(new IPEndPoint(IPAddress.Parse("203.0.113.1"), 0), static _ => { }));

        Assert.Equal(SocketError.AddressNotAvailable, exception.SocketErrorCode);
        Assert.Contains("203.0.113.1", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_end_point_of_another_kind_is_refused()
    {
        await using var group = new TestGroup();

        await Assert.ThrowsAsync<ArgumentException>(() => group.ListenAsync(new DnsEndPoint("localhost", 0), static _ => { }));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(StreamListenerOptions.MaxBacklog + 1)]
    public async Task A_backlog_out_of_range_is_refused(int backlog)
    {
        await using var group = new TestGroup();
        var options = new StreamListenerOptions { Backlog = backlog };

        await Assert.ThrowsAsync<ArgumentException>(() => group.ListenAsync(Server.Loopback, static _ => { }, options));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Connections_have_the_no_delay_option_of_the_listener(bool noDelay)
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group, options: new StreamListenerOptions { NoDelay = noDelay });

        var (_, handler) = server.Open();

        Assert.Equal(noDelay, handler.Socket.GetSocket().NoDelay);
    }

    [Fact]
    public async Task What_the_receiver_of_a_connection_throws_closes_that_connection_only()
    {
        await using var group = new TestGroup(loops: 2, LoadBalance.RoundRobin);
        var thrown = new InvalidTimeZoneException();
        var count = 0;
        Server? server = null;
        await using var listener = await group.ListenAsync(Server.Loopback, socket =>
        {
            if (Interlocked.Increment(ref count) <= 2)
            {
                throw thrown;
            }

            server!.OnAccepted(socket);
        });
        server = new Server();

        // One on each loop: the accepting one and the one that it is handed to.
        for (var i = 0; i < 2; i++)
        {
            using var refused = Server.Dial(listener.LocalEndPoint);
            Assert.Equal(0, refused.Receive(new byte[1]));
            Assert.Same(thrown, group.NextUnhandled());
        }

        using var client = Server.Dial(listener.LocalEndPoint);
        var handler = server.NextAccepted();
        Assert.Equal(1, group.ConnectionCount);
        handler.Socket.Close();
    }

    private static int Port(Server server) => ((IPEndPoint)server.EndPoint).Port;

    private static IPEndPoint FreeEndPoint()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(Server.Loopback);
        return (IPEndPoint)socket.LocalEndPoint!;
    }

    private static async Task AssertInUseAsync(TestGroup group, EndPoint endPoint)
    {
        var exception = await Assert.ThrowsAsync<SocketException>(() => group.ListenAsync(endPoint, static _ => { }));

        Assert.Equal(SocketError.AddressAlreadyInUse, exception.SocketErrorCode);
        Assert.Contains(endPoint.ToString()!, exception.Message, StringComparison.Ordinal);
    }
}
