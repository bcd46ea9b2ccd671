using System.Collections.Concurrent;
using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>Runs on the thread pool what one loop has found to do.</summary>
/// <remarks>
/// <para>
/// A work item of the pool costs more than a small request. So a whole batch, what one pass of the loop brought, is one of them: a worker that takes
/// one call after the other until none is left.
/// </para>
/// <para>
/// While a worker has not come to the end of what is there, the loop leaves its descriptors alone, unless it makes calls itself: each event that it went to fetch would interrupt the worker
/// on a busy processor, and bring one request where a moment later there are many.
/// </para>
/// <para>
/// Nobody may be stranded behind a call that blocks or computes for long. A worker that the monitor finds in the same call at two looks does not count any more:
/// another one takes its place, and it ends when it comes back. And while calls wait from one look to the next, workers are added as long as there are fewer
/// than processors. The pool decides when a worker gets a thread, so with everything blocked this degrades to what the pool does by itself.
/// </para>
/// </remarks>
internal sealed class PoolDispatcher(EventLoop loop) : IMonitored
{
    private static readonly TimeSpan LongestWait = TimeSpan.FromMilliseconds(1);

    private readonly ConcurrentQueue<ILoopCall> _ready = new();
    private readonly Lock _workersLock = new();

    // All that there have been; replaced, under the lock, when one more is needed.
    private Worker[] _workers = [];

    // How many of them run or are on their way to a thread, those that are overdue not counted.
    private int _active;

    // Whether the loop waits for the workers to come to the end: 0 or 1.
    private int _loopWaits;

    // The loop's.
    private bool _inBatch;

    // The monitor's: whether calls waited at the last look.
    private bool _waited;

    // Whether the pool has no thread for a worker. Set by the monitor, which clears it, too, if the worker that gets one has not.
    private bool _isStuck;

    // Whether the loop is making the calls that wait for such a worker: 0 or 1.
    private int _loopTakes;

    private EventLoop Loop => loop;

    /// <summary>Whether calls had better be made elsewhere for now, since the pool has no thread for them.</summary>
    internal bool IsStuck => Volatile.Read(ref _isStuck);

    public bool IsBusy => Volatile.Read(ref _active) > 0 || !_ready.IsEmpty;

    /// <summary>Has a call made. On the loop at the end of its pass, with others; from other threads at once.</summary>
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

            // Posted calls come after the pass's events. A loop that is ending takes no more, and has told every connection of it.
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
        var isStuck = false;
        foreach (var worker in Volatile.Read(ref _workers))
        {
            var workersSample = worker.Sample();
            sample = workersSample > sample ? workersSample : sample;
            isAnyQueued |= worker.IsQueued;
            isStuck |= worker.HasNoThread();
        }

        isStuck &= loop.IsAdaptive;
        if (!isStuck)
        {
            Volatile.Write(ref _isStuck, false);
        }

        var wait = !_ready.IsEmpty;
        if (wait)
        {
            sample = sample > MonitorSample.InCall ? sample : MonitorSample.InCall;
            if (Interlocked.CompareExchange(ref _active, 1, 0) == 0)
            {
                Start();
            }
            else if (isStuck)
            {
                // The loop can make them.
                Volatile.Write(ref _isStuck, true);
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
            // They are still busy with an earlier batch. If the last one ends between these lines it has seen the flag, and the call that it posts ends the wait.
            Interlocked.Exchange(ref _loopWaits, 1);
            if (!_ready.IsEmpty)
            {
                loop.DeferPolling(LongestWait);
            }
        }

        loop.Monitor.Touch();
    }

    /// <summary>Makes one of the calls that wait, on the loop, and then the others. The loop may be another thread's afterwards, which goes on.</summary>
    private static void TakeNext(object? state)
    {
        var dispatcher = (PoolDispatcher)state!;
        if (dispatcher.IsStuck && dispatcher._ready.TryDequeue(out var call))
        {
            _ = dispatcher.Loop.TryPostInternal(TakeNext, dispatcher);
            dispatcher.Loop.Invoke(call);
            return;
        }

        Volatile.Write(ref dispatcher._loopTakes, 0);
    }

    /// <summary>Sends a worker, which is counted already, to the pool.</summary>
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

        // How often it was queued, and what the monitor saw of that at the last look.
        private long _queuings;
        private long _seenQueuing;

        // The monitor's.
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

        /// <summary>Whether it has been in the queue of the pool since the last look. By the monitor.</summary>
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
            Volatile.Write(ref dispatcher._isStuck, false);
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

                        // Another one has its place; its own next epoch is the one that the monitor gave away.
                        _epoch++;
                        Volatile.Write(ref _state, Idle);
                        return;
                    }

                    _calls.FlushIfDue(dispatcher.Loop);
                }

                _calls.Flush(dispatcher.Loop);

                // Whoever adds after this sees that there is one worker less; whoever added before is seen here.
                Interlocked.Decrement(ref dispatcher._active);
            }
            while (!dispatcher._ready.IsEmpty && Interlocked.CompareExchange(ref dispatcher._active, 1, 0) == 0);

            Volatile.Write(ref _state, Idle);
            if (Interlocked.Exchange(ref dispatcher._loopWaits, 0) != 0)
            {
                _ = dispatcher.Loop.TryPostInternal(static _ => { }, null);
            }
        }

        /// <summary>Takes its place from it if it is in the same call as at the last sample.</summary>
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
