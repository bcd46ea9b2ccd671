using System.Net.Sockets;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class LoopBalancerTests
{
    private const int LoopCount = 4;
    private const int Connections = 200;

    public static TheoryData<bool> TcpAndUnix => [false, true];

    [Theory]
    [MemberData(nameof(TcpAndUnix))]
    public async Task Round_robin_gives_every_loop_its_turn(bool unix)
    {
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup(LoopCount, LoadBalance.RoundRobin);
        await using var server = await Server.StartAsync(group, Address(unix, directory));

        Connect(server, Connections);

        Waiting.Until(() => server.AcceptedCount == Connections);
        Assert.All(Counts(group), static count => Assert.Equal(Connections / LoopCount, count));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    public async Task Round_robin_holds_while_a_loop_is_busy(int busyLoop)
    {
        await using var group = new TestGroup(LoopCount, LoadBalance.RoundRobin);
        await using var server = await Server.StartAsync(group);

        using (group.KeepBusy(busyLoop))
        {
            // Those that the kernel gives to the busy loop's listening socket wait there.
            Connect(server, Connections - 1);
            Waiting.Until(() => group.ConnectionCount > 0);
            Assert.InRange(Spread(Counts(group)), 0, 1);
        }

        Waiting.Until(() => server.AcceptedCount == Connections - 1);
        Assert.InRange(Spread(Counts(group)), 0, 1);
    }

    [Theory]
    [MemberData(nameof(TcpAndUnix))]
    public async Task Least_connections_fills_up_what_was_emptied(bool unix)
    {
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup(LoopCount, LoadBalance.LeastConnections);
        await using var server = await Server.StartAsync(group, Address(unix, directory));
        Connect(server, 40);
        var handlers = Enumerable.Range(0, 40).Select(_ => server.NextAccepted()).ToList();
        Assert.Equal([10, 10, 10, 10], Counts(group));

        foreach (var handler in handlers.Where(handler => handler.Socket.Loop.Index == 2).Take(7)
            .Concat(handlers.Where(handler => handler.Socket.Loop.Index == 1).Take(3)))
        {
            handler.Socket.Close();
            await handler.Closed;
        }

        Assert.Equal([10, 7, 3, 10], Counts(group));

        Connect(server, 4);
        Waiting.Until(() => server.AcceptedCount == 44);
        Assert.Equal([10, 7, 7, 10], Counts(group));

        Connect(server, 10);
        Waiting.Until(() => server.AcceptedCount == 54);
        Assert.Equal([11, 11, 11, 11], Counts(group));
    }

    [Fact]
    public async Task Least_connections_leaves_a_connection_to_the_loop_that_accepted_it_among_equals()
    {
        await using var group = new TestGroup(LoopCount, LoadBalance.LeastConnections);
        var balancer = new LoopBalancer([.. group.Loops], LoadBalance.LeastConnections);

        Assert.Equal(2, balancer.Assign(group.Loops[2]).Index);
        Assert.Equal(0, balancer.Assign(group.Loops[2]).Index);
        Assert.Equal(3, balancer.Assign(group.Loops[3]).Index);
        Assert.Equal(1, balancer.Assign(group.Loops[0]).Index);
        Assert.Equal(3, balancer.Assign(group.Loops[3]).Index);
    }

    [Fact]
    public async Task Least_connections_takes_the_lowest_index_among_equals_of_a_shared_listener()
    {
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup(LoopCount, LoadBalance.LeastConnections);
        await using var server = await Server.StartAsync(group, Address(unix: true, directory));

        var indices = Enumerable.Range(0, 6).Select(_ => server.Open().Handler.Socket.Loop.Index).ToList();

        Assert.Equal([0, 1, 2, 3, 0, 1], indices);
    }

    [Theory]
    [MemberData(nameof(TcpAndUnix))]
    public async Task Random_accepts_every_connection(bool unix)
    {
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup(LoopCount, LoadBalance.Random);
        await using var server = await Server.StartAsync(group, Address(unix, directory));

        Connect(server, Connections);

        Waiting.Until(() => server.AcceptedCount == Connections);
        Assert.Equal(Connections, group.ConnectionCount);

        // 200 fair draws leave one of four loops empty once in 10^24 times.
        Assert.All(Counts(group), static count => Assert.NotEqual(0, count));
    }

    [Theory]
    [InlineData(LoadBalance.Random)]
    [InlineData(LoadBalance.RoundRobin)]
    [InlineData(LoadBalance.LeastConnections)]
    public async Task A_loop_that_is_held_is_given_no_more_connections_than_the_backlog(LoadBalance loadBalance)
    {
        const int Backlog = 4;
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup(loops: 2, loadBalance, scheduling: LoopScheduling.Inline);
        await using var server = await Server.StartAsync(group, Address(unix: true, directory), new StreamListenerOptions { Backlog = Backlog });

        using (group.KeepBusy(loop: 1))
        {
            Connect(server, Connections);

            // The one that accepts takes all others itself.
            Waiting.Until(() => group.ConnectionCount == Connections);
            Assert.Equal([Connections - Backlog, Backlog], Counts(group));
            Waiting.Until(() => server.AcceptedCount == Connections - Backlog);
        }

        Waiting.Until(() => server.AcceptedCount == Connections);
        Assert.Equal([Connections - Backlog, Backlog], Counts(group));

        // It is given connections again.
        Connect(server, 20);
        Waiting.Until(() => server.AcceptedCount == Connections + 20);
        Assert.InRange(group.Loops[1].ConnectionCount, Backlog + 1, Backlog + 20);
    }

    [Fact]
    public async Task Round_robin_goes_on_to_the_next_loop_that_has_room()
    {
        await using var group = new TestGroup(LoopCount, LoadBalance.RoundRobin);
        var loops = group.Loops;
        var balancer = new LoopBalancer([.. loops], LoadBalance.RoundRobin);
        var inTransit = new ConnectionsInTransit(LoopCount, limit: 1);

        Assert.Equal([0, 1, 2, 3, 0, 0], Enumerable.Range(0, 6).Select(_ => balancer.Assign(loops[0], loops[0], inTransit).Index));

        inTransit.End(loops[2]);
        Assert.Equal(2, balancer.Assign(loops[0], loops[0], inTransit).Index);
    }

    [Theory]
    [InlineData(LoadBalance.Random)]
    [InlineData(LoadBalance.RoundRobin)]
    [InlineData(LoadBalance.LeastConnections)]
    public async Task The_counts_return_to_zero(LoadBalance loadBalance)
    {
        await using var group = new TestGroup(LoopCount, loadBalance);
        await using var server = await Server.StartAsync(group);
        Connect(server, Connections);

        for (var i = 0; i < Connections; i++)
        {
            server.NextAccepted().Socket.Close();
        }

        Waiting.Until(() => group.ConnectionCount == 0);
        Assert.All(Counts(group), static count => Assert.Equal(0, count));
    }

    private static UnixDomainSocketEndPoint? Address(bool unix, TemporaryDirectory directory) =>
        unix ? new UnixDomainSocketEndPoint(directory.File("socket")) : null;

    private static void Connect(Server server, int count)
    {
        for (var i = 0; i < count; i++)
        {
            server.Connect();
        }
    }

    private static int[] Counts(TestGroup group) => [.. group.Loops.Select(static loop => loop.ConnectionCount)];

    private static int Spread(int[] counts) => counts.Max() - counts.Min();
}
