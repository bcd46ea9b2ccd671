using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class TimerQueueTests
{
    private int _asked;

    /// <summary>Against a model: what is due comes out earliest first, and within a moment in the order of creation.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void Whatever_is_called_off_the_others_come_in_order_and_the_queue_stays_small(int seed)
    {
        var queue = NewQueue();
        var random = new Random(seed);
        var pending = new List<(LoopTimer Timer, int Number)>();
        var delays = Enumerable.Range(0, 5).Select(static i => TimeSpan.FromHours(i + 1)).ToArray();
        var created = 0;
        for (var step = 0; step < 20_000; step++)
        {
            switch (random.Next(pending.Count < 500 ? 6 : 10))
            {
                case < 4:
                    var timer = NewTimer(queue, delays[random.Next(delays.Length)]);
                    queue.Add(timer);
                    pending.Add((timer, created++));
                    break;
                case 4 when random.Next(20) == 0 && pending.Count > 0:
                    var first = pending.MinBy(static entry => (entry.Timer.Due, entry.Number));
                    Assert.Same(first.Timer, queue.TakeDue(first.Timer.Due));
                    pending.Remove(first);
                    break;
                default:
                    if (pending.Count > 0)
                    {
                        var index = random.Next(pending.Count);
                        pending[index].Timer.Cancel();
                        pending[index].Timer.Cancel();
                        pending.RemoveAt(index);
                    }

                    break;
            }

            if (step % 100 == 0)
            {
                _ = queue.MillisecondsToNext();
                Assert.InRange(queue.Count, pending.Count, Math.Max(2 * pending.Count, pending.Count + TimerQueue.MaxCancelled) + 1);
            }
        }

        Assert.Equal(pending.OrderBy(static entry => (entry.Timer.Due, entry.Number)).Select(static entry => entry.Timer), TakeAll(queue));
        Assert.True(queue.IsEmpty);
    }

    [Fact]
    public void The_loop_is_asked_once_until_it_has_tidied_up()
    {
        var queue = NewQueue();
        var timers = Enumerable.Range(0, 4 * TimerQueue.MaxCancelled).Select(_ => NewTimer(queue, TimeSpan.FromHours(1))).ToArray();
        Array.ForEach(timers, queue.Add);

        Array.ForEach(timers, static timer => timer.Cancel());

        Assert.Equal(1, _asked);
        Assert.Equal(timers.Length, queue.Count);
        queue.CompactIfRequested();
        Assert.Equal(0, queue.Count);
    }

    [Fact]
    public void A_timer_that_is_called_off_before_it_is_added_is_not_added()
    {
        var queue = NewQueue();
        var timer = NewTimer(queue, TimeSpan.FromHours(1));
        timer.Cancel();

        queue.Add(timer);

        Assert.True(queue.IsEmpty);
        Assert.Equal(-1, queue.MillisecondsToNext());
    }

    private static List<LoopTimer> TakeAll(TimerQueue queue)
    {
        var taken = new List<LoopTimer>();
        while (queue.TakeDue(long.MaxValue) is { } timer)
        {
            taken.Add(timer);
        }

        return taken;
    }

    private static LoopTimer NewTimer(TimerQueue queue, TimeSpan delay) => new(queue, delay, static _ => { }, null, mayBlock: false);

    private TimerQueue NewQueue() => new(() => _asked++);
}
