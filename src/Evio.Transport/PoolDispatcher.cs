using System.Collections.Concurrent;
using Evio.Transport.Native;

namespace Evio.Transport;

/// <summary>
/// Runs on the thread pool what one loop has found to do: the continuations of readers and writers whose connections became ready.
/// </summary>
/// <remarks>
/// <para>
/// A work item of the pool costs more than a small request. So a whole batch, what one pass of the loop brought, is one of them: a worker that takes
/// one continuation after the other until none is left.
/// </para>
/// <para>
/// While a worker has not come to the end of what is there, the loop leaves its descriptors alone: each event that it went to fetch would interrupt the worker
/// on a busy processor, and bring one request where a moment later there are many.
/// </para>
/// <para>
/// Nobody may be stranded behind a continuation that blocks or computes for long. While some are waiting, the loop looks every millisecond: it adds a
/// worker as long as there are fewer than processors, and also if none has come back for its next continuation since the last look. The pool
/// decides when a worker gets a thread, so with everything blocked this degrades to what the pool does by itself.
/// </para>
/// </remarks>
internal sealed class PoolDispatcher(EventLoop loop) : IThreadPoolWorkItem
{
    private static readonly TimeSpan LookInterval = TimeSpan.FromMilliseconds(1);

    private readonly ConcurrentQueue<IThreadPoolWorkItem> _ready = new();

    // Running, or on their way to a thread of the pool.
    private int _workers;

    // How many continuations have been taken; written by the workers.
    private long _taken;

    // Whether the loop waits for the workers to come to the end: 0 or 1.
    private int _loopWaits;

    // The loop's.
    private long _takenBefore;
    private bool _inBatch;
    private bool _looking;

    /// <summary>Has a continuation run. On the loop at the end of its pass, with others; from other threads at once.</summary>
    internal void Add(IThreadPoolWorkItem continuation)
    {
        if (!loop.IsCurrent)
        {
            ThreadPool.UnsafeQueueUserWorkItem(continuation, preferLocal: false);
            return;
        }

        _ready.Enqueue(continuation);
        if (!_inBatch)
        {
            _inBatch = true;

            // Posted calls come after the pass's events. A loop that is ending takes no more, and has told every connection of it.
            if (!loop.TryPost(static dispatcher => ((PoolDispatcher)dispatcher!).EndBatch(), this))
            {
                EndBatch();
            }
        }
    }

    /// <summary>The worker: takes what is there until nothing is left.</summary>
    void IThreadPoolWorkItem.Execute()
    {
        do
        {
            while (_ready.TryDequeue(out var continuation))
            {
                Interlocked.Increment(ref _taken);
                continuation.Execute();
            }

            // Whoever adds after this sees that there is one worker less; whoever added before is seen here.
            Interlocked.Decrement(ref _workers);
        }
        while (!_ready.IsEmpty && Interlocked.CompareExchange(ref _workers, 1, 0) == 0);

        if (Interlocked.Exchange(ref _loopWaits, 0) != 0)
        {
            _ = loop.TryPost(static _ => { }, null);
        }
    }

    private void EndBatch()
    {
        _inBatch = false;
        if (Interlocked.CompareExchange(ref _workers, 1, 0) == 0)
        {
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
        }
        else
        {
            // It is still busy with an earlier batch. If it ends between these lines it has seen the flag, and the call that it posts ends the wait.
            Interlocked.Exchange(ref _loopWaits, 1);
            if (!_ready.IsEmpty)
            {
                loop.DeferPolling(LookInterval);
            }
        }

        if (!_looking)
        {
            _looking = true;
            _takenBefore = Volatile.Read(ref _taken);
            ScheduleLook();
        }
    }

    private void ScheduleLook() => loop.Schedule(LookInterval, static dispatcher => ((PoolDispatcher)dispatcher!).Look(), this);

    private void Look()
    {
        if (_ready.IsEmpty)
        {
            _looking = false;
            return;
        }

        var taken = Volatile.Read(ref _taken);
        if (taken == _takenBefore || Volatile.Read(ref _workers) < Environment.ProcessorCount)
        {
            Interlocked.Increment(ref _workers);
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
        }

        _takenBefore = taken;
        ScheduleLook();
    }
}
