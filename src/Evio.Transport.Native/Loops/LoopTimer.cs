using System.Diagnostics;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native;

/// <summary>A call that a loop makes once, at or after a moment; made by <see cref="EventLoop.Schedule"/>.</summary>
public sealed class LoopTimer : IDisposable
{
    private readonly TimerQueue _queue;

    // The callback is taken by the one caller that makes the call or calls it off, and who takes it takes the state.
    private Action<object?>? _callback;
    private object? _state;

    internal LoopTimer(TimerQueue queue, TimeSpan delay, Action<object?> callback, object? state, bool mayBlock)
    {
        _queue = queue;
        _callback = callback;
        _state = state;
        MayBlock = mayBlock;
        var ticks = delay.TotalSeconds * Stopwatch.Frequency;
        var now = Stopwatch.GetTimestamp();
        Due = ticks >= long.MaxValue - now ? long.MaxValue : now + (long)Math.Ceiling(ticks);
    }

    /// <summary>Whether the call is still to come. From any thread.</summary>
    public bool IsPending => Volatile.Read(ref _callback) is not null;

    /// <summary>The moment, as a time stamp.</summary>
    internal long Due { get; }

    /// <summary>Whether the call is the user's, who may lose the loop in it.</summary>
    internal bool MayBlock { get; }

    /// <summary>
    /// Calls the timer off, and lets go of the callback and its state. From any thread, but only on the timer's loop it is certain that the call does not begin at
    /// this moment; without effect when it was made or called off before.
    /// </summary>
    public void Cancel()
    {
        if (Interlocked.Exchange(ref _callback, null) is not null)
        {
            _state = null;
            _queue.NoteCancelled();
        }
    }

    /// <summary>The same as <see cref="Cancel"/>.</summary>
    public void Dispose() => Cancel();

    internal void Fire()
    {
        if (Interlocked.Exchange(ref _callback, null) is { } callback)
        {
            var state = _state;
            _state = null;
            callback(state);
        }
    }
}
