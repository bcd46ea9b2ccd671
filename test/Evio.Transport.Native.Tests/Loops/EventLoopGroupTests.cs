using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class EventLoopGroupTests
{
    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 1)]
    [InlineData(5, 5)]
    public async Task A_group_has_as_many_loops_as_asked_for(int asked, int expected)
    {
        await using var group = new TestGroup(asked);

        Assert.Equal(Enumerable.Range(0, expected), group.Loops.Select(static loop => loop.Index));
    }

    [Fact]
    public async Task A_group_of_minus_one_has_a_loop_per_processor()
    {
        await using var group = new TestGroup(-1);

        Assert.Equal(Environment.ProcessorCount, group.Loops.Count);
    }

    [Theory]
    [InlineData(-2)]
    [InlineData(EventLoopGroupOptions.MaxLoopCount + 1)]
    public void A_loop_count_out_of_range_is_refused(int count)
    {
        var exception = Assert.Throws<ArgumentException>(() => new EventLoopGroup(new EventLoopGroupOptions { LoopCount = count }));
        Assert.Contains($"{count}", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_load_balance_that_is_not_defined_is_refused() =>
        Assert.Throws<ArgumentException>(() => new EventLoopGroup(new EventLoopGroupOptions { LoadBalance = (LoadBalance)3 }));

    [Fact]
    public async Task Each_loop_runs_on_a_thread_of_its_own()
    {
        // Without take-overs, for which a busy machine is enough.
        await using var group = new TestGroup(loops: 3, scheduling: LoopScheduling.Inline);
        var threads = new int[3];
        for (var i = 0; i < 3; i++)
        {
            Assert.False(group.Loops[i].IsCurrent);
            await group.RunAsync(
                () =>
                {
                    threads[i] = Environment.CurrentManagedThreadId;
                    Assert.Equal([i], group.Loops.Where(static loop => loop.IsCurrent).Select(static loop => loop.Index));
                },
                i);
        }

        Assert.Equal(3, threads.Distinct().Count());
    }

    [Fact]
    public async Task Disposing_tells_every_connection_once_on_its_loop()
    {
        const int Connections = 50;
        var group = new TestGroup(loops: 3, LoadBalance.RoundRobin);
        var server = await Server.StartAsync(group);
        var connections = Enumerable.Range(0, Connections).Select(_ => server.Open()).ToList();

        await group.DisposeAsync();

        Assert.All(connections, static connection =>
        {
            var (client, handler) = connection;
            Assert.Equal((1, 1), (handler.StoppingCount, handler.ClosedCount));
            Assert.Empty(handler.OffLoop);
            Assert.Equal(SocketError.OperationAborted, handler.Socket.Send([1]).Error);
            Assert.Equal(0, client.Receive(new byte[1]));
        });
        Assert.Equal(0, group.ConnectionCount);
        await server.DisposeAsync();
    }

    [Fact]
    public async Task A_connection_may_send_its_last_words_when_its_loop_stops()
    {
        var group = new TestGroup();
        StreamSocket? last = null;
        var server = await Server.StartAsync(group, socket => new RecordingHandler(last = socket) { Stopping = () => last!.Send([7]) });
        var (client, _) = server.Open();

        await group.DisposeAsync();

        var buffer = new byte[2];
        Assert.Equal(1, client.Receive(buffer));
        Assert.Equal(7, buffer[0]);
        Assert.Equal(0, client.Receive(buffer));
        await server.DisposeAsync();
    }

    [Fact]
    public async Task A_handler_that_throws_when_its_loop_stops_keeps_no_other_from_being_told()
    {
        var group = new TestGroup();
        var server = await Server.StartAsync(group, static socket => new RecordingHandler(socket)
        {
            Stopping = static () => throw new InvalidTimeZoneException(),
        });
        var handlers = Enumerable.Range(0, 3).Select(_ => server.Open().Handler).ToList();

        await group.Group.DisposeAsync().AsTask().Within();

        Assert.All(handlers, static handler => Assert.Equal((1, 1), (handler.StoppingCount, handler.ClosedCount)));
        Assert.All(handlers, _ => Assert.IsType<InvalidTimeZoneException>(group.NextUnhandled()));
        await group.DisposeAsync();
        await server.DisposeAsync();
    }

    [Fact]
    public async Task Disposing_ends_all_threads_and_closes_all_descriptors()
    {
        const string Name = "disposing";
        Assert.Equal(0, ProcessState.Threads(Name));
        var before = ProcessState.SocketsAndPollers();
        var group = new TestGroup(loops: 4, threadName: Name);
        var server = await Server.StartAsync(group);
        for (var i = 0; i < 10; i++)
        {
            server.Open();
        }

        Waiting.Until(() => ProcessState.Threads(Name) == 4);

        // Each loop has a poller and a listener at least.
        Assert.True(ProcessState.OpenedSince(before).Count >= (4 * 2) + (10 * 2));

        await group.DisposeAsync();
        await server.DisposeAsync();

        Assert.Empty(ProcessState.OpenedSince(before));

        // A thread's entry outlives the join by a moment.
        Waiting.Until(() => ProcessState.Threads(Name) == 0);
    }

    [Fact]
    public async Task Closing_a_connection_while_its_loop_stops_closes_it_once_and_in_time()
    {
        const int Rounds = 150;
        const int Connections = 16;
        var before = ProcessState.SocketsAndPollers();
        for (var round = 0; round < Rounds; round++)
        {
            var group = new TestGroup(loops: 2);
            var server = await Server.StartAsync(group);
            var handlers = Enumerable.Range(0, Connections).Select(_ => server.Open().Handler).ToList();
            using var begin = new Barrier(3);
            var closers = Enumerable.Range(0, 2).Select(i => Waiting.OnThread(() =>
            {
                begin.Join();
                for (var at = i; at < Connections; at += 2)
                {
                    handlers[at].Socket.Close();
                }
            })).ToArray();
            begin.Join();

            await group.DisposeAsync();

            Assert.All(handlers, static handler =>
            {
                Assert.Equal(1, handler.ClosedCount);
                Assert.Empty(handler.OffLoop);
            });
            await Task.WhenAll(closers).Within();
            Assert.Equal(0, group.ConnectionCount);
            await server.DisposeAsync();
        }

        Assert.Empty(ProcessState.OpenedSince(before));
    }

    [Fact]
    public async Task Connections_that_are_being_handed_over_while_the_group_is_disposed_are_closed()
    {
        const int Rounds = 100;
        var before = ProcessState.SocketsAndPollers();
        for (var round = 0; round < Rounds; round++)
        {
            var group = new TestGroup(loops: 3, LoadBalance.RoundRobin);
            var server = await Server.StartAsync(group);
            for (var i = 0; i < 12; i++)
            {
                server.Connect();
            }

            await group.DisposeAsync();

            Assert.Equal(0, group.ConnectionCount);
            await server.DisposeAsync();
        }

        Assert.Empty(ProcessState.OpenedSince(before));
    }

    [Fact]
    public async Task Disposing_makes_the_calls_that_were_posted_before()
    {
        await using var group = new TestGroup();
        var ran = 0;
        Task end;
        using (group.KeepBusy())
        {
            for (var i = 0; i < 100; i++)
            {
                Assert.True(group.Loops[0].TryPost(_ => ran++, null));
            }

            end = group.Group.DisposeAsync().AsTask();
        }

        await end.Within();
        Assert.Equal(100, ran);
    }

    [Fact]
    public async Task A_loop_cannot_wait_for_its_own_end_but_may_begin_it()
    {
        await using var group = new TestGroup(loops: 2);

        await group.RunAsync(() => Assert.Throws<InvalidOperationException>(group.Group.Dispose));

        var end = Task.CompletedTask;
        await group.RunAsync(() => end = group.Group.DisposeAsync().AsTask());
        await end.Within();
    }

    [Fact]
    public async Task A_group_may_be_disposed_by_many_and_more_than_once()
    {
        await using var group = new TestGroup(loops: 2);

        Waiting.InParallel(4, _ => group.Group.Dispose());

        await group.Group.DisposeAsync();
        group.Group.Dispose();
    }
}
