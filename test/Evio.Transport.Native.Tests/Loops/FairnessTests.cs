using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

/// <summary>However much is posted to a loop, its descriptors and timers get their turn, and what is posted keeps its order.</summary>
public sealed class FairnessTests
{
    private const int Many = 50 * WorkQueue.MaxItemsPerPass;

    [Fact]
    public async Task Between_an_event_and_its_delivery_a_bounded_number_of_posted_calls_is_made()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Inline);
        var calls = 0;
        var delivered = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var server = await Server.StartAsync(group, socket => new RecordingHandler(socket)
        {
            Ready = (_, events) =>
            {
                if (events.HasFlag(ReadyEvents.Readable))
                {
                    delivered.TrySetResult(calls);
                }
            },
        });
        var (client, _) = server.Open();
        var loop = group.Loops[0];
        using (group.KeepBusy())
        {
            // Both in one list, which the loop takes at once.
            Assert.True(loop.TryPost(_ => client.Send([1]), null));
            for (var i = 0; i < Many; i++)
            {
                Assert.True(loop.TryPost(_ => calls++, null));
            }
        }

        Assert.InRange(await delivered.Task.Within(), 0, WorkQueue.MaxItemsPerPass);
        await group.SettleAsync();
        Assert.Equal(Many, calls);
    }

    [Fact]
    public async Task Between_a_timer_and_its_call_a_bounded_number_of_posted_calls_is_made()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Inline);
        var calls = 0;
        var fired = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
        var loop = group.Loops[0];
        using (group.KeepBusy())
        {
            Assert.True(loop.TryPost(_ => loop.Schedule(TimeSpan.Zero, _ => fired.SetResult(calls), null), null));
            for (var i = 0; i < Many; i++)
            {
                Assert.True(loop.TryPost(_ => calls++, null));
            }
        }

        Assert.InRange(await fired.Task.Within(), 0, WorkQueue.MaxItemsPerPass);
    }

    /// <summary>A thread that posts without end; the echo's way through the loop is not counted in time.</summary>
    [Fact]
    public async Task A_thread_that_posts_without_end_does_not_stop_an_echo()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Inline);
        await using var server = await Server.StartAsync(group, static socket => new RecordingHandler(socket)
        {
            Ready = static (handler, _) => Echo(handler.Socket),
        });
        var (client, _) = server.Open();
        var loop = group.Loops[0];
        var stop = false;
        var posted = 0L;
        var made = 0L;
        var poster = Waiting.OnThread(() =>
        {
            while (!Volatile.Read(ref stop))
            {
                // As far ahead of the loop as memory permits a test.
                if (posted - Volatile.Read(ref made) < 1_000_000)
                {
                    posted++;
                    Assert.True(loop.TryPost(_ => Volatile.Write(ref made, made + 1), null));
                }
            }
        });
        for (var i = 0; i < 100; i++)
        {
            client.Send([(byte)i]);
            var echo = new byte[1];
            Assert.Equal(1, client.Receive(echo));
            Assert.Equal(i, echo[0]);
        }

        Volatile.Write(ref stop, true);
        await poster.Within();
        await group.SettleAsync();
        Assert.Equal(posted, made);
    }

    [Fact]
    public async Task What_is_posted_at_once_runs_in_order_also_when_a_call_loses_the_loop()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        var loop = group.Loops[0];
        var made = new List<int>();
        using var last = new ManualResetEventSlim();
        Assert.True(loop.TryPostInternal(
            _ =>
            {
                for (var i = 0; i < Many; i++)
                {
                    // Those that keep the loop are made in order. One that may lose it can be late before it has come to its first line.
                    Assert.True(IsLate(i) ? loop.TryPost(_ => last.Await(), null) : loop.TryPostInternal(number => made.Add((int)number!), i));
                }

                Assert.True(loop.TryPost(_ => last.Set(), null));
            },
            null));
        last.Await();

        await group.SettleAsync();
        Assert.Equal(Enumerable.Range(0, Many).Where(static i => !IsLate(i)), made);

        static bool IsLate(int number) => number % (WorkQueue.MaxItemsPerPass + 5) == 7 && number < 500;
    }

    [Fact]
    public async Task A_loop_that_ends_makes_all_calls_that_were_posted_before()
    {
        var group = new TestGroup(scheduling: LoopScheduling.Inline);
        var made = new List<int>();
        using (group.KeepBusy())
        {
            for (var i = 0; i < Many; i++)
            {
                Assert.True(group.Loops[0].TryPost(number => made.Add((int)number!), i));
            }
        }

        await group.DisposeAsync();
        Assert.Equal(Enumerable.Range(0, Many), made);
    }

    private static void Echo(StreamSocket socket)
    {
        var buffer = new byte[16];
        if (socket.Receive(buffer) is { Count: > 0 } result)
        {
            _ = socket.Send(buffer.AsSpan(0, result.Count));
        }
    }
}
