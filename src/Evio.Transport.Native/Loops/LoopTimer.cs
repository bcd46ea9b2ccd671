using System.Diagnostics;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native;

/// <summary>A call that a loop makes once, at or after a given moment. <see cref="EventLoop.Schedule"/> creates it.</summary>
public sealed class LoopTimer : IDisposable
{
    private readonly TimerQueue _queue;

    // The thread that fires or cancels the timer takes the callback by an exchange. The thread that took it may use the state.
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

    /// <summary>When the call is due, as a time stamp.</summary>
    internal long Due { get; }

    /// <summary>Whether the call is user code, in which the loop may be lost.</summary>
    internal bool MayBlock { get; }

    /// <summary>
    /// Cancels the timer, and releases the callback and its state. Has no effect after the call was made or cancelled. From any thread.
    /// Only on the timer's loop it is certain that the call does not begin at this moment.
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
