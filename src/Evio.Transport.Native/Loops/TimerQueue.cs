using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>A loop's timers, the earliest first and those of the same moment in the order of their creation.</summary>
internal sealed class TimerQueue
{
    private readonly PriorityQueue<LoopTimer, (long Due, long Order)> _timers = new();
    private long _order;

    internal void Add(LoopTimer timer) => _timers.Enqueue(timer, (timer.Due, _order++));

    /// <summary>How long the loop may block, in milliseconds as <see cref="Polling.Poller.Wait"/> takes them.</summary>
    internal int MillisecondsToNext()
    {
        while (_timers.TryPeek(out var timer, out var when))
        {
            if (!timer.IsPending)
            {
                _timers.Dequeue();
                continue;
            }

            var wait = when.Due - Stopwatch.GetTimestamp();

            // Rounded up: a wait that ends a fraction of a millisecond early would be repeated with 0, and spin until the timer is due.
            return wait <= 0 ? 0 : (int)Math.Min(int.MaxValue, Math.Ceiling(wait * 1000.0 / Stopwatch.Frequency));
        }

        return -1;
    }

    /// <summary>Takes the next timer that is due, or null. Timers made meanwhile with no delay wait for the next pass.</summary>
    internal LoopTimer? TakeDue(long now)
    {
        while (_timers.TryPeek(out var timer, out var when) && (when.Due <= now || !timer.IsPending))
        {
            _timers.Dequeue();
            if (timer.IsPending)
            {
                return timer;
            }
        }

        return null;
    }

    internal bool IsEmpty => _timers.Count == 0;
}
