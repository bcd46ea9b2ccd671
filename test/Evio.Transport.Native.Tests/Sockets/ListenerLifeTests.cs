using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

/// <summary>Pausing, resuming and closing.</summary>
public sealed class ListenerLifeTests
{
    private const int Backlog = 20;

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public async Task A_paused_listener_leaves_connections_in_the_backlog_until_it_is_resumed(int loops)
    {
        await using var group = new TestGroup(loops);
        await using var server = await StartPausedAsync(group);
        await group.SettleAsync();
        Assert.Equal(0, server.AcceptedCount);

        server.Listener.Resume();

        Waiting.Until(() => server.AcceptedCount == Backlog);
    }

    [Fact]
    public async Task Pausing_and_resuming_twice_is_like_once()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group);

        server.Listener.Resume();
        server.Listener.Pause();
        server.Listener.Pause();
        await group.SettleAsync();
        server.Connect();
        await group.SettleAsync();
        Assert.Equal(0, server.AcceptedCount);
        server.Listener.Resume();
        server.Listener.Resume();

        server.NextAccepted();
    }

    [Theory]
    [InlineData(1, LoadBalance.Random)]
    [InlineData(3, LoadBalance.Random)]
    [InlineData(3, LoadBalance.RoundRobin)]
    public async Task Closing_accepts_the_backlog_first(int loops, LoadBalance loadBalance)
    {
        await using var group = new TestGroup(loops, loadBalance);
        await using var server = await StartPausedAsync(group);

        await server.Listener.CloseAsync().Within();

        // Not "in the end": the task says that the last one has been given to its loop.
        Assert.Equal(Backlog, server.AcceptedCount);
    }

    [Fact]
    public async Task A_connection_of_the_backlog_whose_receiver_throws_costs_no_other_one()
    {
        await using var group = new TestGroup();
        var accepted = 0;
        var listener = await group.ListenAsync(Server.Loopback, socket =>
        {
            socket.Close();
            if (++accepted == 1)
            {
                throw new InvalidTimeZoneException();
            }
        });
        listener.Pause();
        await group.SettleAsync();
        using var first = Server.Dial(listener.LocalEndPoint);
        using var second = Server.Dial(listener.LocalEndPoint);
        using var third = Server.Dial(listener.LocalEndPoint);

        await listener.CloseAsync().Within();

        Assert.IsType<InvalidTimeZoneException>(group.NextUnhandled());
        Assert.Equal(3, accepted);
    }

    [Fact]
    public async Task A_closed_listener_refuses_connections_and_keeps_those_it_accepted()
    {
        await using var group = new TestGroup(loops: 2);
        await using var server = await Server.StartAsync(group);
        var (client, handler) = server.Open();

        await server.Listener.CloseAsync().Within();

        Assert.Equal(SocketError.ConnectionRefused, Assert.Throws<SocketException>(server.Connect).SocketErrorCode);
        client.Send([1]);
        Waiting.Until(() => handler.Seen.HasFlag(ReadyEvents.Readable));
        Assert.Equal(1, handler.Socket.Send([2]).Count);
        Assert.Equal(1, client.Receive(new byte[2]));
    }

    [Fact]
    public async Task Closing_twice_pausing_and_resuming_afterwards_do_no_harm()
    {
        await using var group = new TestGroup(loops: 2);
        await using var server = await Server.StartAsync(group);

        var first = server.Listener.CloseAsync();
        var second = server.Listener.CloseAsync();
        await first.Within();
        await second.Within();
        server.Listener.Pause();
        server.Listener.Resume();
        await group.SettleAsync();
        await server.Listener.DisposeAsync();
    }

    [Fact]
    public async Task Pausing_a_closed_listener_does_not_touch_the_next_socket_with_its_descriptor()
    {
        await using var group = new TestGroup();
        await using var other = await Server.StartAsync(group);

        // Several times: what runs for the first time may open a file, and get the descriptor that is meant for the socket.
        for (var round = 0; round < 5; round++)
        {
            var listener = await group.ListenAsync(Server.Loopback, static socket => socket.Close());

            // The clients have their descriptors already, so that the server's side of one gets that of the listener.
            var clients = Enumerable.Range(0, 16)
                .Select(static _ => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)).ToList();
            await listener.CloseAsync().Within();
            clients.ForEach(client => client.Connect(other.EndPoint));
            var handlers = clients.ConvertAll(_ => other.NextAccepted());

            listener.Pause();
            await group.SettleAsync();

            clients.ForEach(static client => client.Send([1]));
            Waiting.Until(() => handlers.TrueForAll(static handler => handler.Seen.HasFlag(ReadyEvents.Readable)));
            clients.ForEach(static client => client.Dispose());
            handlers.ForEach(static handler => handler.Socket.Close());
        }
    }

    [Fact]
    public async Task Closing_frees_every_descriptor()
    {
        await using var group = new TestGroup(loops: 4);
        var before = ProcessState.SocketsAndPollers();
        var listener = await group.ListenAsync(Server.Loopback, static _ => { });
        Assert.Equal(4, ProcessState.OpenedSince(before).Count);

        await listener.CloseAsync().Within();

        Assert.Empty(ProcessState.OpenedSince(before));
    }

    [Fact]
    public async Task Closing_after_the_group_was_disposed_ends()
    {
        var group = new TestGroup(loops: 2);
        var server = await Server.StartAsync(group);

        await group.DisposeAsync();

        await server.Listener.CloseAsync().Within();
    }

    [Fact]
    public async Task Disposing_a_group_closes_the_backlog_of_a_paused_listener()
    {
        var before = ProcessState.SocketsAndPollers();
        var group = new TestGroup();
        var server = await StartPausedAsync(group);

        await group.DisposeAsync();

        for (var i = 0; i < server.AcceptedCount; i++)
        {
            var handler = server.NextAccepted();
            await handler.Closed;
            Assert.Equal((1, 1), (handler.StoppingCount, handler.ClosedCount));
        }

        await server.DisposeAsync();
        Assert.Empty(ProcessState.OpenedSince(before));
    }

    [Fact]
    public async Task A_disposed_group_refuses_to_listen()
    {
        var group = new TestGroup();
        await group.DisposeAsync();

        await Assert.ThrowsAsync<ObjectDisposedException>(() => group.ListenAsync(Server.Loopback, static _ => { }));
    }

    [Fact]
    public async Task A_listener_that_comes_too_late_for_its_loops_frees_its_descriptors()
    {
        var before = ProcessState.SocketsAndPollers();
        var group = new TestGroup(loops: 3);
        var options = new StreamListenerOptions();
        var sockets = ListenSockets.Bind(Server.Loopback, options, loopCount: 3);
        using (var client = Server.Dial(sockets.EndPoint))
        {
            await group.DisposeAsync();

            await Assert.ThrowsAsync<ObjectDisposedException>(
                () => StreamListener.StartAsync(group.Group, sockets, static _ => Assert.Fail("There is no loop for this call."), options).Within());
        }

        Assert.Empty(ProcessState.OpenedSince(before));
    }

    [Fact]
    public async Task Listening_while_the_group_is_disposed_either_works_or_is_refused()
    {
        const int Rounds = 200;
        for (var round = 0; round < Rounds; round++)
        {
            var group = new TestGroup(loops: 2);
            using var begin = new Barrier(2);
            var disposal = Task.Run(
                async () =>
                {
                    begin.Join();
                    await group.DisposeAsync();
                },
                CancellationToken.None);
            begin.Join();
            try
            {
                var listener = await group.ListenAsync(Server.Loopback, static socket => socket.Close());
                await listener.CloseAsync().Within();
            }
            catch (ObjectDisposedException)
            {
                // The group was faster.
            }

            await disposal.Within();
        }
    }

    [Fact]
    public async Task Closing_loses_no_connection_that_was_established()
    {
        const int Rounds = 100;
        await using var group = new TestGroup();
        for (var round = 0; round < Rounds; round++)
        {
            var accepted = 0;
            var listener = await group.ListenAsync(Server.Loopback, socket =>
            {
                Interlocked.Increment(ref accepted);
                socket.Close();
            });
            for (var i = 0; i < 5; i++)
            {
                Server.Dial(listener.LocalEndPoint).Dispose();
            }

            await listener.CloseAsync().Within();

            Assert.Equal(5, accepted);
        }
    }

    private static async Task<Server> StartPausedAsync(TestGroup group)
    {
        var server = await Server.StartAsync(group, new IPEndPoint(IPAddress.Loopback, 0));
        server.Listener.Pause();
        await group.SettleAsync();
        for (var i = 0; i < Backlog; i++)
        {
            server.Connect();
        }

        return server;
    }
}
