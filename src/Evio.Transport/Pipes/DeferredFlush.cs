using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// The deferred flush of a connection: output that is flushed and not sent yet, because more is about to come. ASP.NET Core flushes a
/// response twice or more often: the headers with the first part of the body, then the end. The output is sent when the thread that has
/// flushed it finishes its current work.
/// </summary>
/// <remarks>
/// <para>
/// Inside of <see cref="UserCalls"/>, the end of the work is the end of the user code, or of the batch of calls that the thread makes. On
/// any other thread of the pool it is the end of the work item. The pool does not report that end. So this object is queued as a work item
/// before all others of the thread. It runs when the thread has finished the current work item, and what that item has queued before it in
/// the same way. An idle thread may run it at once, and sends.
/// </para>
/// <para>
/// A flush that is still alone then is a part of output of which more may come soon. It goes to the end of the pool's queue, where
/// everything goes on the Sockets transport, and takes along what is flushed before its turn.
/// </para>
/// <para>
/// Some output leaves earlier. The reader is about to wait on the same thread, and the call does not belong to a batch. Or the output
/// reaches <see cref="Limit"/>. Or the thread has not finished at the second tick of the monitor, because it blocks or is CPU-bound. Then
/// the monitor sends (<see cref="IWatched"/>), and no flush waits for that thread until it has finished.
/// </para>
/// <para>
/// The work item is wasted where flushes always come alone: Kestrel's HTTP/2 coalesces its output itself, and flushes it from a work item
/// of its own. After <see cref="MaxWastedDeferrals"/> flushes that stayed alone, the next one leaves at once, then 3, 7, and so
/// on up to <see cref="MaxImmediate"/>.
/// </para>
/// <para>
/// The wait for the monitor costs milliseconds each time user code flushes and then waits synchronously for a consequence: its own input,
/// or the answer of another connection's peer. After a flush inside of user code that the monitor had to send, the next 3 leave at once,
/// then 15, then <see cref="MaxImmediate"/>. A flush that is sent at the end of its call reduces this number to a quarter.
/// </para>
/// <para>All members but <see cref="Send"/> and those of the interfaces are called under the connection's gate.</para>
/// </remarks>
internal sealed class DeferredFlush(SocketPipeWriter writer) : IThreadPoolWorkItem, IWatched
{
    /// <summary>The number of bytes that may be deferred, unless the write buffer is smaller.</summary>
    internal const int Limit = 64 * 1024;

    private const int MaxWastedDeferrals = 8;
    private const int MaxImmediate = 63;

    /// <summary>The thread number of output that waits for no particular thread.</summary>
    private const int AnyThread = -1;

    // The thread for the end of whose work the output waits, or AnyThread, and the number of flushes that wait for it; 0 when nothing
    // waits.
    private int _thread;
    private int _flushes;

    // The thread behind whose work item this object is queued in the pool; 0 when it is not queued.
    private int _queuedBy;

    // Whether this object has run from there once, and is now at the end of the pool's queue.
    private bool _isRequeued;

    // What was learned from flushes that wait behind work items.
    private int _wastedDeferrals;
    private int _immediate;
    private int _immediateLeft;
    private int _immediateThread;

    // For the monitor: the number of the current wait, the number that the monitor saw at its last tick, and the thread that it has found
    // stalled, or 0.
    private long _wait;
    private long _seen;
    private bool _isMonitored;
    private int _stalledThread;

    // For flushes inside of user code: whether the current wait belongs to one, and whether the monitor had to send the last one. Then how
    // many flushes leave at once after such a one, and how many of them are still to come.
    private bool _isInCall;
    private bool _wasStalled;
    private int _immediateInCall;
    private int _immediateInCallLeft;

    /// <summary>Whether output is deferred.</summary>
    internal bool Waits => _thread != 0;

    /// <summary>Notes that a thread has finished user code.</summary>
    /// <returns>Whether output has waited for that, and is to be sent.</returns>
    internal bool IsDue(int thread)
    {
        if (_thread != thread)
        {
            return false;
        }

        _immediateInCall = _wasStalled ? _immediateInCall : _immediateInCall / 4;
        return true;
    }

    /// <summary>Defers a flush to the end of what its thread is doing, unless it is better sent at once.</summary>
    /// <param name="thread">The thread that flushes.</param>
    /// <param name="isInCall">Whether the thread is inside of <see cref="UserCalls"/>; otherwise it runs a work item of the pool.</param>
    /// <param name="next">What the caller has to do as soon as it has left the gate.</param>
    internal bool TryJoin(int thread, bool isInCall, out Preparation next)
    {
        next = Preparation.None;
        if (_stalledThread == thread)
        {
            // A stalled thread is not waited for again before it has returned.
            return false;
        }

        if (Waits && !_isRequeued && _thread != thread)
        {
            // No flush waits for the end of another thread's work.
            return false;
        }

        // A flush inside of user code takes over the output at the end of the pool's queue: the end of the user code is sure to come.
        if (Waits && !(_isRequeued && isInCall))
        {
            _flushes++;
            (_wastedDeferrals, _immediate) = (0, 0);
            return true;
        }

        if (isInCall)
        {
            if (_wasStalled)
            {
                _wasStalled = false;
                _immediateInCall = Math.Min((4 * _immediateInCall) + 3, MaxImmediate);
                _immediateInCallLeft = _immediateInCall;
            }

            if (_immediateInCallLeft > 0)
            {
                _immediateInCallLeft--;
                return false;
            }

            next = Preparation.AddToCalls;
        }
        else if (_immediateLeft > 0)
        {
            _immediateLeft--;
            _immediateThread = thread;
            return false;
        }
        else if (_queuedBy != 0 && _queuedBy != thread && !_isRequeued)
        {
            return false;
        }
        else
        {
            next = _queuedBy == 0 ? Preparation.Queue : Preparation.None;
            _queuedBy = thread;
        }

        _thread = thread;
        _flushes = 1;
        _isRequeued = false;
        _isInCall = isInCall;
        _wait++;
        next |= TryBeginMonitoring();
        return true;
    }

    /// <summary>
    /// Leaves the rest of the output to the monitor's next tick, after the monitor has sent a part. The stalled thread may send the rest
    /// before.
    /// </summary>
    /// <returns>False when that thread has returned by now, and will not send it.</returns>
    internal bool TryWatchAgain()
    {
        if (_stalledThread == 0)
        {
            return false;
        }

        _thread = _stalledThread;
        _wait++;
        return _isMonitored = true;
    }

    /// <summary>
    /// Leaves the rest of the output to any thread, after a thread on which others depend has sent enough. The next flush, the thread pool
    /// or the monitor sends it, whichever comes first.
    /// </summary>
    /// <returns>What the caller has to do as soon as it has left the gate.</returns>
    internal Preparation ReleaseToAnyThread()
    {
        _thread = AnyThread;
        _isInCall = _isRequeued = false;
        _wait++;
        return TryBeginMonitoring();
    }

    private Preparation TryBeginMonitoring()
    {
        var begins = !_isMonitored;
        _isMonitored = true;
        return begins ? Preparation.Monitor : Preparation.None;
    }

    /// <summary>Ends the wait: the output is being sent, or never will be.</summary>
    internal void End() => _thread = 0;

    /// <summary>Notes that user code is about to run. A stalled thread has returned, or the user code runs on another thread.</summary>
    internal void NoteUserCall() => _stalledThread = 0;

    /// <summary>Checks for output that has to leave before the reader waits for more input.</summary>
    /// <param name="thread">The thread that reads.</param>
    /// <param name="isInCall">Whether the thread is in a call of <see cref="UserCalls"/>.</param>
    /// <param name="isInBatch">Whether the call belongs to a batch, after which the thread sends. The call is likely to return now.</param>
    /// <returns>Whether output waits for that thread, and has to leave first.</returns>
    internal bool MustFlushBeforeRead(int thread, bool isInCall, bool isInBatch)
    {
        var isAnswer = _thread == thread;
        if (isInBatch && !_isRequeued)
        {
            return false;
        }

        if (!isInCall && (isAnswer || _immediateThread == thread))
        {
            // A caller that flushes and reads in turns comes here for each answer. Its flushes are not wasted, even if each stays alone.
            (_wastedDeferrals, _immediate, _immediateLeft) = (0, 0, 0);
        }

        return isAnswer;
    }

    /// <summary>Notes that this object has left the queue of the pool.</summary>
    /// <param name="again">Whether it has to be queued once more, at the end.</param>
    /// <returns>Whether output waits for that, and is to be sent.</returns>
    internal bool TryDequeue(out bool again)
    {
        var isDue = Waits && _thread == _queuedBy;
        if (_queuedBy == Environment.CurrentManagedThreadId)
        {
            _stalledThread = 0;
        }

        again = isDue && _flushes == 1 && !_isRequeued;
        _isRequeued = again;
        if (again)
        {
            return false;
        }

        _queuedBy = 0;
        if (isDue && _flushes == 1 && ++_wastedDeferrals >= MaxWastedDeferrals)
        {
            _immediate = Math.Min((2 * _immediate) + 1, MaxImmediate);
            _immediateLeft = _immediate;
        }

        return isDue;
    }

    /// <summary>Takes a tick of the monitor.</summary>
    /// <param name="isStalled">Whether the output is to be sent now.</param>
    /// <returns>Whether the monitor has to check again at the next tick.</returns>
    internal bool Check(out bool isStalled)
    {
        isStalled = Waits && _seen == _wait;
        if (isStalled && !_isRequeued)
        {
            _stalledThread = _thread;
            _wasStalled |= _isInCall;
        }

        _seen = _wait;
        return _isMonitored = Waits && !isStalled;
    }

    void IThreadPoolWorkItem.Execute() => writer.SendQueued();

    bool IWatched.Check() => writer.CheckDeferred();

    /// <summary>Sends the output that waits for the calling thread, which has finished user code.</summary>
    internal void Send() => writer.SendDeferred();

    /// <summary>What the caller has to do for a wait that has begun.</summary>
    [Flags]
    internal enum Preparation : byte
    {
        None = 0,

        /// <summary>Have the flush sent at the end of the user code.</summary>
        AddToCalls = 1,

        /// <summary>Queue the flush to the pool, before everything else of this thread.</summary>
        Queue = 2,

        /// <summary>Have the monitor watch the flush.</summary>
        Monitor = 4,
    }
}
