using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>Calls that one thread makes in a row, and the flush that they share.</summary>
/// <remarks>
/// <para>
/// A send right after another send costs less than a send between two handlers: the network stack's code is still in the processor's
/// caches, and a receiver on the same machine that the first send woke is awake for the next.
/// </para>
/// <para>
/// A peer waits for what is flushed. The flush runs when the thread has no more calls to make, and otherwise after the first call that ends
/// later than <see cref="Limit"/> after the batch began or was flushed last. A call may block, so the connections whose output is deferred
/// are monitored as well (<see cref="EventLoop.Watch"/>).
/// </para>
/// <para>The batch belongs to its thread, not to a loop. A thread that has lost its loop in a call runs the flush itself.</para>
/// </remarks>
internal sealed class CallBatch
{
    /// <summary>How long calls are made before the flush runs.</summary>
    private static readonly TimeSpan Limit = TimeSpan.FromMicroseconds(500);

    private IThreadPoolWorkItem? _flush;

    // When the batch began or was flushed last, as a time stamp; 0 while it is empty and Begin was not called.
    private long _since;

    /// <summary>Begins to measure the time, before the first of several calls.</summary>
    internal void Begin() => _since = Stopwatch.GetTimestamp();

    /// <summary>Adds the flush that a call has returned; <see langword="null"/> and one that is already there change nothing.</summary>
    internal void Add(IThreadPoolWorkItem? flush, EventLoop loop)
    {
        if (flush is null || flush == _flush)
        {
            return;
        }

        if (_flush is not null)
        {
            // The flush of another kind of call.
            Flush(loop);
        }

        _flush = flush;
        _since = _since == 0 ? Stopwatch.GetTimestamp() : _since;
    }

    /// <summary>Runs the flush if it has waited for <see cref="Limit"/>. Between two calls.</summary>
    internal void FlushIfDue(EventLoop loop)
    {
        if (_flush is null)
        {
            return;
        }

        var now = Stopwatch.GetTimestamp();
        if (Stopwatch.GetElapsedTime(_since, now) >= Limit)
        {
            Flush(loop);
            _since = now;
        }
    }

    /// <summary>Runs the flush, if there is one.</summary>
    /// <param name="loop">The loop to which an exception of the flush is reported.</param>
    internal void Flush(EventLoop loop)
    {
        _since = 0;
        if (_flush is not { } flush)
        {
            return;
        }

        _flush = null;
        try
        {
            LoopThread.RetryOnInterrupt(
                static flush =>
                {
                    flush.Execute();
                    return true;
                },
                flush);
        }
        catch (Exception exception)
        {
            loop.Report(exception);
        }
    }
}
