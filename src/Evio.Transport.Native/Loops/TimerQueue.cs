using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>A loop's timers, the earliest first and those of the same moment in the order of their creation.</summary>
/// <remarks>
/// Any thread cancels timers, but only the loop uses the queue. So a cancelled timer stays until the loop removes it. The loop removes it
/// when it is the next one, or together with the others when they are more than half of the queue (<see cref="Compact"/>). The loop checks
/// for that when it adds a timer and before it waits. A thread that cancels one too many asks for it. So the queue has at most twice as
/// many entries as there are pending timers, or <see cref="MaxCancelled"/> more. A cancelled timer costs a constant number of steps.
/// </remarks>
/// <param name="askToTidy">Has the loop call <see cref="CompactIfRequested"/>. From any thread.</param>
internal sealed class TimerQueue(Action askToTidy)
{
    /// <summary>How many cancelled timers the queue keeps, however few are pending.</summary>
    internal const int MaxCancelled = 64;

    private readonly PriorityQueue<LoopTimer, (long Due, long Order)> _timers = new();
    private long _order;

    // The number of timers that were cancelled since the queue was tidied, which is at least the number of them that it still has; and
    // whether the loop was asked to tidy. Used by any thread.
    private int _cancelled;
    private int _asked;

    /// <summary>The number of entries, cancelled ones included. On other threads it may be outdated.</summary>
    internal int Count => _timers.Count;

    internal bool IsEmpty => _timers.Count == 0;

    private bool ShouldCompact => Volatile.Read(ref _cancelled) > Math.Max(MaxCancelled, _timers.Count / 2);

    internal void Add(LoopTimer timer)
    {
        Compact();
        if (timer.IsPending)
        {
            _timers.Enqueue(timer, (timer.Due, _order++));
        }
    }

    /// <summary>Counts a cancelled timer, even if it is no longer in the queue. From any thread.</summary>
    internal void NoteCancelled()
    {
        Interlocked.Increment(ref _cancelled);
        if (ShouldCompact && Interlocked.Exchange(ref _asked, 1) == 0)
        {
            askToTidy();
        }
    }

    /// <summary>Tidies the queue after <see cref="NoteCancelled"/> has asked for it.</summary>
    internal void CompactIfRequested()
    {
        // Cleared first, so that a timer that is cancelled from now on asks again.
        Interlocked.Exchange(ref _asked, 0);
        Compact();
    }

    /// <summary>
    /// How long the loop may block, in milliseconds as <see cref="Polling.Poller.Wait"/> takes them; −1 when there is no timer.
    /// </summary>
    internal int MillisecondsToNext()
    {
        Compact();
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

    /// <summary>Takes the next timer that is due, or null. A timer without delay that is added meanwhile waits for the next pass.</summary>
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

    private void Compact()
    {
        if (ShouldCompact)
        {
            RemoveCancelled();
        }
    }

    private void RemoveCancelled()
    {
        // Reset before the timers are checked: a timer that is cancelled after its check counts for the next time.
        Interlocked.Exchange(ref _cancelled, 0);
        var pending = new List<(LoopTimer, (long, long))>();
        foreach (var (timer, when) in _timers.UnorderedItems)
        {
            if (timer.IsPending)
            {
                pending.Add((timer, when));
            }
        }

        _timers.Clear();
        _timers.EnqueueRange(pending);
        _timers.TrimExcess();
    }
}
