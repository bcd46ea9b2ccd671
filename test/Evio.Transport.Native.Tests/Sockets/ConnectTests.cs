using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;
using Evio.Transport.Testing;

namespace Evio.Transport.Native.Tests.Sockets;

/// <summary>Outbound connections of a group, against servers of its own and of the BCL.</summary>
public sealed class ConnectTests
{
    public static TheoryData<bool> TcpAndUnix => [false, true];

    [Theory]
    [MemberData(nameof(TcpAndUnix))]
    public async Task A_connection_is_made_on_its_loop_and_carries_bytes_both_ways(bool unix)
    {
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup(loops: 3);
        await using var server = await Server.StartAsync(group, unix ? new UnixDomainSocketEndPoint(directory.File("socket")) : null);

        var client = await ConnectAsync(group, server.EndPoint);
        var accepted = server.NextAccepted();

        Assert.Equal(server.EndPoint.ToString(), client.Socket.RemoteEndPoint!.ToString());
        Assert.Equal(accepted.Socket.RemoteEndPoint!.ToString(), client.Socket.LocalEndPoint!.ToString());
        Assert.Empty(client.OffLoop);
        await ExchangeAsync(group, client.Socket, accepted);
        await ExchangeAsync(group, accepted.Socket, client);
    }

    [Fact]
    public async Task What_the_server_sends_first_is_reported()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group, static socket =>
        {
            socket.Send("hello"u8);
            return new RecordingHandler(socket);
        });

        var client = await ConnectAsync(group, server.EndPoint);

        Waiting.Until(() => client.Seen.HasFlag(ReadyEvents.Readable));
    }

    [Fact]
    public async Task The_loop_can_be_chosen()
    {
        await using var group = new TestGroup(loops: 4);
        await using var server = await Server.StartAsync(group);

        foreach (var loop in group.Loops)
        {
            var client = await ConnectAsync(group, server.EndPoint, new StreamConnectOptions { Loop = loop });
            Assert.Same(loop, client.Socket.Loop);
        }
    }

    [Fact]
    public async Task A_loop_of_another_group_is_refused()
    {
        await using var group = new TestGroup();
        await using var other = new TestGroup();

        var exception = Assert.Throws<ArgumentException>(
            () => { _ = group.Group.ConnectAsync(Server.Loopback, static _ => { }, new StreamConnectOptions { Loop = other.Loops[0] }); });

        Assert.Contains("Loop", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Round_robin_counts_outbound_connections_as_well()
    {
        await using var group = new TestGroup(loops: 4, LoadBalance.RoundRobin);
        await using var other = new TestGroup();
        await using var server = await Server.StartAsync(other);

        for (var i = 0; i < 8; i++)
        {
            await ConnectAsync(group, server.EndPoint);
        }

        Assert.All(group.Loops, static loop => Assert.Equal(2, loop.ConnectionCount));
    }

    [Fact]
    public async Task A_port_where_nobody_listens_refuses()
    {
        await using var group = new TestGroup();
        using var bound = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        bound.Bind(Server.Loopback);

        var exception = await Assert.ThrowsAsync<SocketException>(() => ConnectAsync(group, bound.LocalEndPoint!));

        Assert.Equal(SocketError.ConnectionRefused, exception.SocketErrorCode);
        Assert.Contains(bound.LocalEndPoint!.ToString()!, exception.Message, StringComparison.Ordinal);
        Assert.Equal(0, group.ConnectionCount);
    }

    [Fact]
    public async Task A_unix_path_where_nobody_listens_refuses()
    {
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup();

        var exception = await Assert.ThrowsAsync<SocketException>(
            () => ConnectAsync(group, new UnixDomainSocketEndPoint(directory.File("socket"))));

        Assert.Equal(SocketError.AddressNotAvailable, exception.SocketErrorCode);
        Assert.Equal(0, group.ConnectionCount);
    }

    [Fact]
    public async Task An_attempt_that_gets_no_answer_can_be_cancelled()
    {
        await using var group = new TestGroup();
        using var silent = new SilentListener();
        using var cancellation = new CancellationTokenSource();

        var attempt = ConnectAsync(group, silent.EndPoint, cancellationToken: cancellation.Token);
        await group.SettleAsync();
        Assert.False(attempt.IsCompleted);
        await cancellation.CancelAsync();

        var exception = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => attempt).Within();
        Assert.Equal(cancellation.Token, exception.CancellationToken);
        Assert.Equal(0, group.ConnectionCount);
    }

    [Fact]
    public async Task Cancelled_before_it_begins_it_does_not_begin()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group);

        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => ConnectAsync(group, server.EndPoint, cancellationToken: new CancellationToken(canceled: true)));

        Assert.Equal(0, group.ConnectionCount);
    }

    [Fact]
    public async Task A_unix_listener_without_room_is_connected_to_when_it_has_some()
    {
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup();
        var endPoint = new UnixDomainSocketEndPoint(directory.File("socket"));
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(endPoint);
        listener.Listen(0);
        using var first = Server.Dial(endPoint);

        var attempt = ConnectAsync(group, endPoint);
        await group.SettleAsync();
        Assert.False(attempt.IsCompleted);
        using var acceptedFirst = listener.Accept();

        var client = await attempt.Within();
        using var accepted = listener.Accept();
        Assert.Equal(3, accepted.Send([1, 2, 3]));
        Waiting.Until(() => client.Seen.HasFlag(ReadyEvents.Readable));
    }

    [Fact]
    public async Task Attempts_end_with_the_group()
    {
        using var silent = new SilentListener();
        using var directory = new TemporaryDirectory();
        var group = new TestGroup();
        var attempt = ConnectAsync(group, silent.EndPoint);
        await group.SettleAsync();

        await group.DisposeAsync();

        await Assert.ThrowsAsync<ObjectDisposedException>(() => attempt).Within();
        await Assert.ThrowsAsync<ObjectDisposedException>(() => ConnectAsync(group, silent.EndPoint)).Within();
    }

    [Fact]
    public async Task What_the_receiver_throws_fails_the_attempt_and_closes_the_connection()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group);

        var exception = await Assert.ThrowsAsync<InvalidOperationException>(
            () => group.Group.ConnectAsync(server.EndPoint, static _ => throw new InvalidOperationException("no"))).Within();

        Assert.Equal("no", exception.Message);
        var accepted = server.NextAccepted();
        Waiting.Until(() => accepted.Seen.HasFlag(ReadyEvents.PeerClosed));
        Waiting.Until(() => group.ConnectionCount == 1);
    }

    [Fact]
    public async Task A_host_name_is_looked_up_and_its_addresses_are_tried_in_turn()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group);
        var port = ((IPEndPoint)server.EndPoint).Port;

        // Of both families where there are both; the server is on one of them.
        var client = await ConnectAsync(group, new DnsEndPoint("localhost", port));

        Assert.Equal(server.EndPoint, client.Socket.RemoteEndPoint);
        var unknown = await Assert.ThrowsAsync<SocketException>(() => ConnectAsync(group, new DnsEndPoint("no.such.host.invalid", port)));
        Assert.NotEqual(SocketError.Success, unknown.SocketErrorCode);
    }

    [Theory]
    [InlineData(AddressFamily.Unspecified)]
    [InlineData(AddressFamily.InterNetwork)]
    public async Task A_silent_address_has_its_time_and_the_next_is_tried(AddressFamily family)
    {
        using var silent = new SilentListener();
        var port = ((IPEndPoint)silent.EndPoint).Port;
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group, new IPEndPoint(IPAddress.Parse("127.0.0.2"), port));
        var asked = new List<(string, AddressFamily)>();
        group.Group.Resolve = (host, family, _) =>
        {
            asked.Add((host, family));
            return Task.FromResult<IPAddress[]>([IPAddress.Loopback, IPAddress.Parse("127.0.0.2")]);
        };

        var client = await ConnectAsync(
            group, new DnsEndPoint("two.test", port, family), new StreamConnectOptions { ConnectTimeout = TimeSpan.FromMilliseconds(50) });

        Assert.Equal(server.EndPoint, client.Socket.RemoteEndPoint);
        Assert.Equal([("two.test", family)], asked);
    }

    [Fact]
    public async Task Silent_addresses_alone_are_a_time_out_and_leave_nothing_behind()
    {
        using var silent = new SilentListener();
        await using var group = new TestGroup();
        var before = ProcessState.Descriptors().Count;
        group.Group.Resolve = static (_, _, _) => Task.FromResult<IPAddress[]>([IPAddress.Loopback, IPAddress.Loopback]);
        var options = new StreamConnectOptions { ConnectTimeout = TimeSpan.FromMilliseconds(20) };

        foreach (var endPoint in (EndPoint[])[silent.EndPoint, new DnsEndPoint("two.test", ((IPEndPoint)silent.EndPoint).Port)])
        {
            var exception = await Assert.ThrowsAsync<SocketException>(() => ConnectAsync(group, endPoint, options));

            Assert.Equal(SocketError.TimedOut, exception.SocketErrorCode);
            Assert.Contains(nameof(StreamConnectOptions.ConnectTimeout), exception.Message, StringComparison.Ordinal);
            Assert.Equal(0, group.ConnectionCount);
        }

        Waiting.Until(() => ProcessState.Descriptors().Count <= before);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-2)]
    public async Task A_time_that_is_none_is_refused(int milliseconds)
    {
        await using var group = new TestGroup();
        var options = new StreamConnectOptions { ConnectTimeout = TimeSpan.FromMilliseconds(milliseconds) };

        var exception = await Assert.ThrowsAsync<ArgumentException>(() => ConnectAsync(group, Server.Loopback, options));

        Assert.Contains(nameof(StreamConnectOptions.ConnectTimeout), exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_name_that_is_not_known_is_named()
    {
        await using var group = new TestGroup();
        group.Group.Resolve = static (_, _, _) => throw new SocketException((int)SocketError.HostNotFound);

        var exception = await Assert.ThrowsAsync<SocketException>(() => ConnectAsync(group, new DnsEndPoint("no.test", 80)));

        Assert.Equal(SocketError.HostNotFound, exception.SocketErrorCode);
        Assert.Contains("'no.test' could not be looked up", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Small_segments_are_sent_at_once_unless_asked_otherwise()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group);

        var prompt = await ConnectAsync(group, server.EndPoint);
        var thrifty = await ConnectAsync(group, server.EndPoint, new StreamConnectOptions { NoDelay = false });

        Assert.True(IsNoDelay(prompt));
        Assert.False(IsNoDelay(thrifty));

        static bool IsNoDelay(RecordingHandler handler) => handler.Socket.GetSocket().NoDelay;
    }

    [Fact]
    public async Task A_storm_of_attempts_that_are_cancelled_leaves_nothing_behind()
    {
        await using var group = new TestGroup(loops: 2);
        await using var server = await Server.StartAsync(group, static socket => new RecordingHandler(socket)
        {
            Ready = static (handler, events) =>
            {
                if ((events & ~(ReadyEvents.Readable | ReadyEvents.Writable)) != 0)
                {
                    handler.Socket.Close();
                }
            },
        });
        var before = ProcessState.Descriptors().Count;

        for (var i = 0; i < 500; i++)
        {
            using var cancellation = new CancellationTokenSource();
            RecordingHandler? connected = null;
            var attempt = group.Group.ConnectAsync(
                server.EndPoint,
                socket =>
                {
                    connected = new RecordingHandler(socket);
                    socket.Start(connected);
                },
                cancellationToken: cancellation.Token);
            if (i % 2 == 0)
            {
                await Task.Yield();
            }

            await cancellation.CancelAsync();
            await attempt.Within().ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);

            // Either it came too late, or nobody was told of a connection.
            Assert.Equal(attempt.IsCompletedSuccessfully, connected is not null);
            connected?.Socket.Close();
        }

        Waiting.Until(() => group.ConnectionCount == 0);
        Waiting.Until(() => ProcessState.Descriptors().Count <= before);
    }

    private static async Task<RecordingHandler> ConnectAsync(
        TestGroup group, EndPoint endPoint, StreamConnectOptions? options = null, CancellationToken cancellationToken = default)
    {
        RecordingHandler? handler = null;
        await group.Group.ConnectAsync(
            endPoint,
            socket =>
            {
                Assert.True(socket.Loop.IsCurrent);
                handler = new RecordingHandler(socket);
                socket.Start(handler);
            },
            options,
            cancellationToken).Within();
        return handler!;
    }

    private static async Task ExchangeAsync(TestGroup group, StreamSocket from, RecordingHandler to)
    {
        to.ForgetEvents();
        Assert.Equal(5, from.Send("hello"u8).Count);
        Waiting.Until(() => to.Seen.HasFlag(ReadyEvents.Readable));
        var buffer = new byte[16];
        Assert.Equal(5, to.Socket.Receive(buffer).Count);
        Assert.Equal("hello"u8, buffer.AsSpan(0, 5));
        await group.SettleAsync();
    }
}
