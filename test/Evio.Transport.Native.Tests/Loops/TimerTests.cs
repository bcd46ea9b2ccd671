using System.Diagnostics;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class TimerTests : IAsyncLifetime
{
    private readonly TestGroup _group = new();

    private EventLoop Loop => _group.Loops[0];

    public ValueTask InitializeAsync() => default;

    public ValueTask DisposeAsync() => _group.DisposeAsync();

    [Fact]
    public async Task Timers_fire_in_the_order_of_their_due_times()
    {
        var fired = await FireAsync(30, 10, 20, 0, 15);

        Assert.Equal([0, 10, 15, 20, 30], fired);
    }

    [Fact]
    public async Task Timers_of_the_same_moment_fire_in_the_order_of_their_creation()
    {
        var order = new List<int>();
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await _group.RunAsync(() =>
        {
            for (var i = 0; i < 50; i++)
            {
                Loop.Schedule(TimeSpan.Zero, number => order.Add((int)number!), i);
            }

            Loop.Schedule(TimeSpan.Zero, _ => done.SetResult(), null);
        });
        await done.Task.Within();

        Assert.Equal(Enumerable.Range(0, 50), order);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(50)]
    public async Task A_timer_never_fires_before_it_is_due(int milliseconds)
    {
        var delay = TimeSpan.FromMilliseconds(milliseconds);
        var elapsed = new TaskCompletionSource<TimeSpan>(TaskCreationOptions.RunContinuationsAsynchronously);
        await _group.RunAsync(() =>
        {
            var start = Stopwatch.GetTimestamp();
            Loop.Schedule(delay, _ => elapsed.SetResult(Stopwatch.GetElapsedTime(start)), null);
        });

        var actual = await elapsed.Task.Within();
        Assert.True(actual >= delay, $"{actual} is less than {delay}.");
    }

    [Fact]
    public async Task A_timer_without_delay_fires_in_the_next_pass_not_at_once()
    {
        var done = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        await _group.RunAsync(() =>
        {
            var inSchedule = true;
            Loop.Schedule(TimeSpan.Zero, _ => done.SetResult(inSchedule), null);
            inSchedule = false;
        });

        Assert.False(await done.Task.Within());
    }

    [Fact]
    public async Task A_timer_that_renews_itself_without_delay_does_not_starve_the_loop()
    {
        var stop = false;
        await _group.RunAsync(() => Loop.Schedule(TimeSpan.Zero, Again, null));

        for (var i = 0; i < 100; i++)
        {
            await _group.RunAsync(static () => { });
        }

        await _group.RunAsync(() => stop = true);

        void Again(object? state)
        {
            if (!stop)
            {
                Loop.Schedule(TimeSpan.Zero, Again, null);
            }
        }
    }

    [Fact]
    public async Task A_cancelled_timer_does_not_fire()
    {
        var fired = new List<string>();
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await _group.RunAsync(() =>
        {
            var first = Loop.Schedule(TimeSpan.FromMilliseconds(1), _ => fired.Add("first"), null);
            var second = Loop.Schedule(TimeSpan.FromMilliseconds(2), _ => fired.Add("second"), null);
            Loop.Schedule(TimeSpan.FromMilliseconds(3), _ => done.SetResult(), null);
            Assert.True(first.IsPending);
            first.Cancel();
            first.Cancel();
            Assert.False(first.IsPending);
            Assert.True(second.IsPending);
        });
        await done.Task.Within();

        Assert.Equal(["second"], fired);
    }

    [Fact]
    public async Task A_timer_may_cancel_another_one_that_is_due()
    {
        var fired = false;
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await _group.RunAsync(() =>
        {
            LoopTimer? other = null;
            Loop.Schedule(TimeSpan.Zero, _ => other!.Cancel(), null);
            other = Loop.Schedule(TimeSpan.Zero, _ => fired = true, null);
            Loop.Schedule(TimeSpan.Zero, _ => done.SetResult(), null);
        });
        await done.Task.Within();

        Assert.False(fired);
    }

    [Fact]
    public async Task A_timer_that_fires_is_no_longer_pending()
    {
        var pending = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        await _group.RunAsync(() =>
        {
            LoopTimer? timer = null;
            timer = Loop.Schedule(TimeSpan.Zero, _ => pending.SetResult(timer!.IsPending), null);
        });

        Assert.False(await pending.Task.Within());
    }

    [Fact]
    public async Task A_timer_may_be_as_far_away_as_a_TimeSpan_reaches()
    {
        var fired = false;
        await _group.RunAsync(() => Loop.Schedule(TimeSpan.MaxValue, _ => fired = true, null));

        Assert.Equal([0, 5], await FireAsync(5, 0));
        Assert.False(fired);
    }

    [Fact]
    public async Task What_a_timer_throws_is_reported_and_the_others_fire()
    {
        var thrown = new InvalidTimeZoneException();
        await _group.RunAsync(() => Loop.Schedule(TimeSpan.Zero, _ => throw thrown, null));

        Assert.Equal([1], await FireAsync(1));
        Assert.Same(thrown, _group.NextUnhandled());
    }

    [Fact]
    public async Task A_timer_that_is_made_off_the_loop_fires_on_it()
    {
        var fired = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);

        Loop.Schedule(TimeSpan.FromMilliseconds(1), _ => fired.SetResult(Loop.IsCurrent), null);

        Assert.True(await fired.Task.Within());
    }

    [Fact]
    public async Task A_timer_that_is_made_off_the_loop_and_called_off_does_not_fire()
    {
        var fired = false;
        using (_group.KeepBusy())
        {
            Loop.Schedule(TimeSpan.Zero, _ => fired = true, null).Cancel();
        }

        Assert.Equal([1], await FireAsync(1));
        Assert.False(fired);
    }

    [Fact]
    public void A_delay_cannot_be_negative() =>
        Assert.Throws<ArgumentOutOfRangeException>(() => Loop.Schedule(TimeSpan.FromTicks(-1), static _ => { }, null));

    /// <summary>While an older timer is pending, which is never removed before it is due.</summary>
    [Fact]
    public async Task Timers_that_are_called_off_on_the_loop_leave_neither_their_states_nor_their_entries()
    {
        const int Count = 100_000;
        var states = new List<WeakReference>();
        var most = 0;
        await _group.RunAsync(() =>
        {
            Loop.Schedule(TimeSpan.FromHours(1), static _ => { }, null);
            for (var i = 0; i < Count; i++)
            {
                ScheduleWithState(states, keep: i % 1000 == 0).Cancel();
                most = Math.Max(most, Loop.TimerCount);
            }
        });

        Assert.InRange(most, 1, 2 + TimerQueue.MaxCancelled + 1);
        AssertCollected(states);
    }

    [Fact]
    public async Task Timers_that_are_called_off_on_other_threads_leave_neither_their_states_nor_their_entries()
    {
        const int Count = 20_000;
        var states = new List<WeakReference>();
        var timers = new List<LoopTimer>();
        await _group.RunAsync(() =>
        {
            Loop.Schedule(TimeSpan.FromHours(1), static _ => { }, null);
            for (var i = 0; i < Count; i++)
            {
                timers.Add(ScheduleWithState(states, keep: i % 1000 == 0));
            }
        });
        Waiting.Until(() => Loop.TimerCount == Count + 1);

        Waiting.InParallel(2, thread =>
        {
            for (var i = thread; i < Count; i += 2)
            {
                timers[i].Cancel();
            }
        });

        // Nothing else happens on the loop.
        Waiting.Until(() => Loop.TimerCount <= 1 + TimerQueue.MaxCancelled + 1);
        AssertCollected(states);
        Assert.All(timers, static timer => Assert.False(timer.IsPending));
    }

    [Fact]
    public async Task A_timer_that_is_called_off_while_its_loop_is_held_lets_go_of_its_state_at_once()
    {
        var states = new List<WeakReference>();
        LoopTimer? timer = null;
        await _group.RunAsync(() => timer = ScheduleWithState(states, keep: true));
        using (_group.KeepBusy())
        {
            timer!.Cancel();

            AssertCollected(states);
        }
    }

    [Fact]
    public async Task A_timer_that_has_fired_lets_go_of_its_state()
    {
        var states = new List<WeakReference>();
        LoopTimer? timer = null;
        await _group.RunAsync(() => timer = ScheduleWithState(states, keep: true, TimeSpan.Zero));

        Waiting.Until(() => !timer!.IsPending);
        await _group.SettleAsync();
        AssertCollected(states);
        GC.KeepAlive(timer);
    }

    /// <summary>Either it is called with its state, or it was called off.</summary>
    [Fact]
    public async Task A_timer_that_is_called_off_while_it_fires_has_its_state_or_is_not_called()
    {
        const int Rounds = 5_000;
        var state = new object();
        var wrong = 0;
        for (var i = 0; i < Rounds; i++)
        {
            var timer = Loop.Schedule(TimeSpan.Zero, given => wrong += given == state ? 0 : 1, state);
            Thread.SpinWait(i % 200);
            timer.Cancel();
        }

        await _group.SettleAsync();
        Assert.Equal(0, wrong);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private LoopTimer ScheduleWithState(List<WeakReference> states, bool keep, TimeSpan? delay = null)
    {
        var state = new byte[1024];
        if (keep)
        {
            states.Add(new WeakReference(state));
        }

        return Loop.Schedule(delay ?? TimeSpan.FromMinutes(5), static _ => { }, state);
    }

    private static void AssertCollected(List<WeakReference> states)
    {
        Assert.NotEmpty(states);
        GC.Collect();
        Assert.All(states, static state => Assert.False(state.IsAlive));
    }

    private async Task<IEnumerable<int>> FireAsync(params int[] delays)
    {
        var fired = new List<int>();
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await _group.RunAsync(() =>
        {
            foreach (var delay in delays)
            {
                Loop.Schedule(
                    TimeSpan.FromMilliseconds(delay),
                    state =>
                    {
                        fired.Add((int)state!);
                        if (fired.Count == delays.Length)
                        {
                            done.SetResult();
                        }
                    },
                    delay);
            }
        });
        await done.Task.Within();
        return fired;
    }
}
