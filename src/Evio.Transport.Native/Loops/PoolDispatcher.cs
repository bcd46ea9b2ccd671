using System.Collections.Concurrent;
using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>Runs the calls of one loop on the thread pool.</summary>
/// <remarks>
/// <para>
/// A work item of the pool costs more than a small request. So all calls of one pass of the loop are a batch, and a batch is one work item:
/// a worker that makes one call after the other until none is left.
/// </para>
/// <para>
/// While a worker still has calls to make, the loop does not poll its descriptors, unless it makes calls itself. On a busy processor,
/// polling would interrupt the worker, and bring one request where a moment later there are many.
/// </para>
/// <para>
/// No call is stuck behind a call that blocks or computes for long. When the monitor finds a worker in the same call at two samples,
/// another worker takes its place. The replaced worker ends when its call returns. While calls wait from one sample to the next, the
/// monitor adds workers, as long as there are fewer of them than processors. The pool decides when a worker gets a thread. So if everything
/// is blocked, calls run as fast as the pool starts threads.
/// </para>
/// </remarks>
internal sealed class PoolDispatcher(EventLoop loop) : IMonitored
{
    private static readonly TimeSpan LongestWait = TimeSpan.FromMilliseconds(1);

    private readonly ConcurrentQueue<ILoopCall> _ready = new();
    private readonly Lock _workersLock = new();

    // All workers so far. The array is replaced, under the lock, when one more is needed.
    private Worker[] _workers = [];

    // The number of workers that run or wait for a thread, without the stalled ones.
    private int _active;

    // Whether the loop waits until the workers have made all calls: 0 or 1.
    private int _loopWaits;

    // Used on the loop only.
    private bool _inBatch;

    // Used by the monitor only: whether calls waited at the last sample.
    private bool _waited;

    // Whether the pool has no thread for a worker. Set by the monitor. Cleared by the worker that gets a thread, or by the monitor.
    private bool _isPoolStarved;

    // Whether the loop makes the calls that wait for such a worker: 0 or 1.
    private int _loopTakes;

    private EventLoop Loop => loop;

    /// <summary>Whether calls should run elsewhere for now, because the pool has no thread for them.</summary>
    internal bool IsPoolStarved => Volatile.Read(ref _isPoolStarved);

    public bool IsBusy => Volatile.Read(ref _active) > 0 || !_ready.IsEmpty;

    /// <summary>
    /// Has the thread pool run a call. On the loop, the call joins the batch of the pass. From other threads it is queued at once.
    /// </summary>
    internal void Add(ILoopCall call)
    {
        if (!loop.IsCurrent)
        {
            ThreadPool.UnsafeQueueUserWorkItem(call, preferLocal: false);
            return;
        }

        _ready.Enqueue(call);
        if (!_inBatch)
        {
            _inBatch = true;

            // Posted calls come after the pass's events. A loop that is ending accepts none, and has notified every connection.
            if (!loop.TryPostInternal(static dispatcher => ((PoolDispatcher)dispatcher!).EndBatch(), this))
            {
                EndBatch();
            }
        }
    }

    public MonitorSample Sample()
    {
        var sample = Volatile.Read(ref _active) > 0 ? MonitorSample.Busy : MonitorSample.Idle;
        var isAnyQueued = false;
        var isStarved = false;
        foreach (var worker in Volatile.Read(ref _workers))
        {
            var workersSample = worker.Sample();
            sample = workersSample > sample ? workersSample : sample;
            isAnyQueued |= worker.IsQueued;
            isStarved |= worker.HasNoThread();
        }

        isStarved &= loop.IsAdaptive;
        if (!isStarved)
        {
            Volatile.Write(ref _isPoolStarved, false);
        }

        var wait = !_ready.IsEmpty;
        if (wait)
        {
            sample = sample > MonitorSample.InCall ? sample : MonitorSample.InCall;
            if (Interlocked.CompareExchange(ref _active, 1, 0) == 0)
            {
                Start();
            }
            else if (isStarved)
            {
                // The loop makes the calls instead.
                Volatile.Write(ref _isPoolStarved, true);
                if (Interlocked.Exchange(ref _loopTakes, 1) == 0)
                {
                    _ = loop.TryPostInternal(TakeNext, this);
                }
            }
            else if (_waited && !isAnyQueued && Volatile.Read(ref _active) < Environment.ProcessorCount)
            {
                sample = MonitorSample.Stalled;
                Interlocked.Increment(ref _active);
                Start();
            }
        }

        _waited = wait;
        return sample;
    }

    private void EndBatch()
    {
        _inBatch = false;
        if (Interlocked.CompareExchange(ref _active, 1, 0) == 0)
        {
            Start();
        }
        else if (!loop.HasMadeCalls)
        {
            // The workers are still busy with an earlier batch. If the last one ends between these lines, it has seen the flag and posts a
            // call that ends the wait.
            Interlocked.Exchange(ref _loopWaits, 1);
            if (!_ready.IsEmpty)
            {
                loop.DeferPolling(LongestWait);
            }
        }

        loop.Monitor.Touch();
    }

    /// <summary>
    /// Makes one of the waiting calls on the loop, and then the others. Another thread may own the loop after a call; it makes the rest.
    /// </summary>
    private static void TakeNext(object? state)
    {
        var dispatcher = (PoolDispatcher)state!;
        if (dispatcher.IsPoolStarved && dispatcher._ready.TryDequeue(out var call))
        {
            _ = dispatcher.Loop.TryPostInternal(TakeNext, dispatcher);
            dispatcher.Loop.Invoke(call);
            return;
        }

        Volatile.Write(ref dispatcher._loopTakes, 0);
    }

    /// <summary>Queues a worker to the pool. The caller has counted it already.</summary>
    private void Start()
    {
        foreach (var worker in Volatile.Read(ref _workers))
        {
            if (worker.TryQueue())
            {
                return;
            }
        }

        var added = new Worker(this);
        _ = added.TryQueue();
        lock (_workersLock)
        {
            Volatile.Write(ref _workers, [.. _workers, added]);
        }
    }

    private sealed class Worker(PoolDispatcher dispatcher) : IThreadPoolWorkItem
    {
        private const int Idle = 0;
        private const int Queued = 1;
        private const int Running = 2;

        private readonly CallBatch _calls = new();
        private int _state;
        private OwnershipWord _ownership;
        private long _epoch;

        // The number of times that the worker was queued, and that number at the monitor's last sample.
        private long _queuings;
        private long _seenQueuing;

        // Used by the monitor only.
        private long _seen;

        internal bool IsQueued => Volatile.Read(ref _state) == Queued;

        internal bool TryQueue()
        {
            if (Interlocked.CompareExchange(ref _state, Queued, Idle) != Idle)
            {
                return false;
            }

            _queuings++;
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
            return true;
        }

        /// <summary>Whether the worker has been in the pool's queue since the last sample. By the monitor.</summary>
        internal bool HasNoThread()
        {
            var queuing = Volatile.Read(ref _queuings);
            var isSame = queuing == _seenQueuing;
            _seenQueuing = queuing;
            return isSame && IsQueued;
        }

        /// <summary>Makes one call after the other until none is left.</summary>
        void IThreadPoolWorkItem.Execute()
        {
            Volatile.Write(ref _state, Running);
            Volatile.Write(ref dispatcher._isPoolStarved, false);
            _calls.Begin();
            do
            {
                while (dispatcher._ready.TryDequeue(out var call))
                {
                    _epoch = _ownership.BeginCall(_epoch);
                    var began = dispatcher.Loop.IsAdaptive ? Stopwatch.GetTimestamp() : 0;
                    _calls.Add(call.Run(), dispatcher.Loop);
                    AmbientState.Restore();
                    if (!_ownership.TryReturn(_epoch))
                    {
                        _calls.Flush(dispatcher.Loop);
                        if (began != 0 && Stopwatch.GetElapsedTime(began) > CallPlacement.LongCall)
                        {
                            call.Cost = LoopCallCost.Blocking;
                        }

                        // Another worker has taken the place. The next epoch of this worker is the one that the monitor's retake has begun.
                        _epoch++;
                        Volatile.Write(ref _state, Idle);
                        return;
                    }

                    _calls.FlushIfDue(dispatcher.Loop);
                }

                _calls.Flush(dispatcher.Loop);

                // A thread that adds a call after this sees one worker less. A call that was added before is seen here.
                Interlocked.Decrement(ref dispatcher._active);
            }
            while (!dispatcher._ready.IsEmpty && Interlocked.CompareExchange(ref dispatcher._active, 1, 0) == 0);

            Volatile.Write(ref _state, Idle);
            if (Interlocked.Exchange(ref dispatcher._loopWaits, 0) != 0)
            {
                _ = dispatcher.Loop.TryPostInternal(static _ => { }, null);
            }
        }

        /// <summary>
        /// Takes a sample. If the worker is in the same call as at the last sample, it loses its place to another worker.
        /// </summary>
        internal MonitorSample Sample()
        {
            var sample = _ownership.Sample(ref _seen);
            if (sample == MonitorSample.Stalled && _ownership.TryRetake(_seen, out _))
            {
                Interlocked.Decrement(ref dispatcher._active);
            }

            return sample;
        }
    }
}
