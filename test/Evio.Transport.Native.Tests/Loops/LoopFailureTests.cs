using System.Net.Sockets;
using System.Reflection;
using Evio.Transport.Native.Polling;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

/// <summary>A loop whose poller fails for good: it ends, and the others serve on.</summary>
public sealed class LoopFailureTests
{
    private const int LoopCount = 3;
    private const int Connections = 60;

    [Theory]
    [InlineData(LoadBalance.Random)]
    [InlineData(LoadBalance.RoundRobin)]
    [InlineData(LoadBalance.LeastConnections)]
    public async Task A_loop_that_has_failed_gets_no_connections(LoadBalance balance)
    {
        await using var group = new FailingGroup(balance);
        await using var server = await Server.StartAsync(group.Group);
        await group.FailAsync(1);

        for (var i = 0; i < Connections; i++)
        {
            server.Connect();
        }

        Waiting.Until(() => server.AcceptedCount == Connections);
        Assert.Equal(0, group.Loops[1].ConnectionCount);
        Assert.Equal(Connections, group.Loops[0].ConnectionCount + group.Loops[2].ConnectionCount);
    }

    [Fact]
    public async Task Its_connections_are_closed_and_the_others_are_not()
    {
        await using var group = new FailingGroup(LoadBalance.RoundRobin);
        await using var server = await Server.StartAsync(group.Group);
        var connections = new List<(Socket Client, RecordingHandler Handler)>();
        for (var i = 0; i < LoopCount; i++)
        {
            connections.Add(server.Open());
        }

        await group.FailAsync(0);

        foreach (var (client, handler) in connections)
        {
            if (handler.Socket.Loop == group.Loops[0])
            {
                await handler.Closed;
            }
            else
            {
                client.Send("1"u8);
                Waiting.Until(() => handler.Socket.Receive(new byte[1]).Count == 1);
            }
        }
    }

    /// <summary>A Unix-domain socket has one listening socket, on one loop, and its clients know no other address.</summary>
    [Fact]
    public async Task A_listening_socket_without_siblings_moves_to_another_loop()
    {
        using var directory = new TemporaryDirectory();
        await using var group = new FailingGroup(LoadBalance.RoundRobin);
        await using var server = await Server.StartAsync(group.Group, new UnixDomainSocketEndPoint(directory.File("socket")));
        await group.FailAsync(0);

        server.Connect();
        Waiting.Until(() => server.AcceptedCount == 1);
    }

    [Fact]
    public async Task The_last_one_says_so_as_well_and_the_group_can_be_disposed()
    {
        await using var group = new FailingGroup(LoadBalance.Random);
        await using var server = await Server.StartAsync(group.Group);
        for (var i = 0; i < LoopCount; i++)
        {
            await group.FailAsync(i);
        }

        Assert.All(group.Loops, static loop => Assert.True(loop.HasEnded));
        Assert.All(group.Loops, static loop => Assert.False(loop.TryPost(static _ => { }, null)));
        await group.Group.Group.DisposeAsync().AsTask().Within();
    }

    [Fact]
    public async Task A_server_of_callbacks_stops_with_the_reason()
    {
        var server = await EvioServer.StartAsync(new Events { NumLoops = 2 }, "tcp://127.0.0.1:0").Within();
        FailingGroup.Break(server.Loops[1]);

        await Assert.ThrowsAsync<SocketException>(() => server.Completion.Within());
    }

    private sealed class FailingGroup : IAsyncDisposable
    {
        private readonly TaskCompletionSource<Exception>[] _failed = [.. Enumerable.Range(0, LoopCount).Select(static _ => new TaskCompletionSource<Exception>(TaskCreationOptions.RunContinuationsAsynchronously))];

        internal FailingGroup(LoadBalance balance) =>
            Group = new TestGroup(LoopCount, balance, poller: PollerKind.Epoll, onLoopFailed: (loop, reason) => _failed[loop.Index].SetResult(reason));

        internal TestGroup Group { get; }

        internal IReadOnlyList<EventLoop> Loops => Group.Loops;

        /// <summary>Has a loop's poller fail, and waits until its loop has told so and has ended.</summary>
        internal async Task FailAsync(int index)
        {
            Break(Loops[index]);
            Assert.IsType<SocketException>(await _failed[index].Task.Within());
            Assert.True(Loops[index].HasEnded);
            Waiting.Until(() => !Loops[index].TryPostWhileEnding(static _ => { }, null));
        }

        /// <summary>
        /// Puts another file in the place of the epoll instance or kqueue, so that each wait fails. The number stays taken. The loop does it itself, between two waits: a kqueue
        /// that is another file can no longer be woken.
        /// </summary>
        internal static void Break(EventLoop loop) => Assert.True(loop.TryPostInternal(
            static state =>
            {
                var poller = FieldOf(typeof(EventLoop), "_poller").GetValue(state)!;
                var descriptor = (int)FieldOf(poller.GetType(), poller is EpollPoller ? "_epoll" : "_kqueue").GetValue(poller)!;
                using var file = File.OpenHandle("/dev/null");
                Assert.Equal(descriptor, TestLibc.dup2((int)file.DangerousGetHandle(), descriptor));
            },
            loop));

        public ValueTask DisposeAsync() => Group.DisposeAsync();

        private static FieldInfo FieldOf(Type type, string name) => type.GetField(name, BindingFlags.Instance | BindingFlags.NonPublic)!;
    }
}
