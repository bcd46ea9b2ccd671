using System.Diagnostics;
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
