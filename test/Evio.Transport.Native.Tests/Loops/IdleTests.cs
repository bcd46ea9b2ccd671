using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

/// <summary>A loop with nothing to do uses no processor time: one that spins would use as much as passes.</summary>
public sealed class IdleTests
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Bound = TimeSpan.FromSeconds(0.5);

    [Fact]
    public async Task Loops_that_were_woken_and_wait_for_a_far_timer_rest()
    {
        await using var group = new TestGroup(loops: 4);
        await group.RunAsync(() => group.Loops[0].Schedule(TimeSpan.FromHours(1), static _ => { }, null));
        await group.RunAsync(() => group.Loops[1].Schedule(TimeSpan.Zero, static _ => { }, null), loop: 1);
        await group.SettleAsync();

        Assert.InRange(ProcessState.ProcessorTimeDuring(Period, TestGroup.ThreadName), TimeSpan.Zero, Bound);
    }

    [Fact]
    public async Task Sockets_that_nobody_reads_let_their_loop_rest()
    {
        await using var group = new TestGroup(loops: 2);
        await using var server = await Server.StartAsync(group);
        var (_, idle) = server.Open();
        var (sending, unread) = server.Open();
        sending.Send([1, 2, 3]);
        var (ending, halfClosed) = server.Open();
        ending.Shutdown(SocketShutdown.Send);
        var (resetting, reset) = server.Open();
        resetting.LingerState = new LingerOption(true, 0);
        resetting.Dispose();
        Waiting.Until(() => idle.Seen.HasFlag(ReadyEvents.Writable));
        Waiting.Until(() => unread.Seen.HasFlag(ReadyEvents.Readable));
        Waiting.Until(() => halfClosed.Seen.HasFlag(ReadyEvents.PeerClosed));
        Waiting.Until(() => reset.Seen.HasFlag(ReadyEvents.HangUp));

        Assert.InRange(ProcessState.ProcessorTimeDuring(Period, TestGroup.ThreadName), TimeSpan.Zero, Bound);
    }

    [Fact]
    public async Task A_paused_listener_with_a_backlog_lets_its_loop_rest()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group);
        server.Listener.Pause();
        await group.SettleAsync();
        server.Connect();

        Assert.InRange(ProcessState.ProcessorTimeDuring(Period, TestGroup.ThreadName), TimeSpan.Zero, Bound);
        Assert.Equal(0, server.AcceptedCount);
    }
}
