using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// What a connection has flushed and not sent, because more is about to come: ASP.NET Core flushes a response two times and more, headers with the first of the body, then the end. It leaves
/// when the thread that has flushed it is through with what it is doing.
/// </summary>
/// <remarks>
/// <para>
/// Inside of <see cref="UserCalls"/> that is their end, or the end of the calls that the thread makes one after the other. On any other thread of the pool it is the end of a work item, of which nobody tells: a work item of this is put before all others
/// that this thread has, and runs when the thread has done the one that it is doing, and what that has put before it in the same way; or at once, on an idle thread, which sends. A flush that is alone by then is a part of
/// something of which more may come before long: it goes to the end of the pool's queue, where everything goes on the Sockets transport, and takes along what is flushed before its turn.
/// Before that it may be the reader that is about to wait, on the same thread, where that is not one of several calls; or
/// the output that comes to <see cref="Limit"/>. And if the thread is not through two looks later, since it blocks or computes, the monitor sends (<see cref="IWatched"/>), and
/// nothing more waits until then.
/// </para>
/// <para>
/// The work item is wasted where flushes always come alone: Kestrel's HTTP/2 collects by itself what it flushes then from a work item of its own. So after
/// <see cref="MaxWastedDeferrals"/> flushes that stayed alone the next one leaves at once, then 3, 7, and so on up to <see cref="MaxDirect"/>.
/// </para>
/// <para>
/// And the monitor's milliseconds are lost again and again where user code flushes and then waits for what follows from that, synchronously: for its own input, or for what another connection's peer answers. So after a flush
/// inside of user code that the monitor had to send the next 3 leave at once, then 15, then <see cref="MaxDirect"/>; a quarter of these after one that has come to the end of its call.
/// </para>
/// <para>All members but <see cref="Send"/> and those of the interfaces are called under the connection's gate.</para>
/// </remarks>
internal sealed class DeferredFlush(SocketPipeWriter writer) : IThreadPoolWorkItem, IWatched
{
    /// <summary>How many bytes may wait, unless the write buffer is smaller.</summary>
    internal const int Limit = 64 * 1024;

    private const int MaxWastedDeferrals = 8;
    private const int MaxDirect = 63;

    /// <summary>What is left waits for no thread's end.</summary>
    private const int Nobody = -1;

    // The thread whose end of work is waited for, or Nobody, and how many flushes wait for it; 0 when nothing waits.
    private int _thread;
    private int _flushes;

    // The thread behind whose work item this is in the queue of the pool; 0 when it is not.
    private int _queuedBy;

    // Whether it has been there before, and is at the end of that queue now.
    private bool _isAtEnd;

    // What was learned about flushes behind work items.
    private int _wastedDeferrals;
    private int _direct;
    private int _directLeft;
    private int _directThread;

    // For the monitor: which wait it is, which one it saw at the last look, and the thread that it has found not to be through for long; 0 when there is none.
    private long _wait;
    private long _seen;
    private bool _isMonitored;
    private int _overdueThread;

    // What was learned about flushes inside of user code that the monitor had to send, or the last of them if that was one: how many leave at once after it.
    private bool _isInCall;
    private bool _wasOverdue;
    private int _directInCall;
    private int _directInCallLeft;

    /// <summary>Whether something waits.</summary>
    internal bool Waits => _thread != 0;

    /// <summary>A thread is through with user code.</summary>
    /// <returns>Whether something has waited for that, and is to be sent.</returns>
    internal bool IsDue(int thread)
    {
        if (_thread != thread)
        {
            return false;
        }

        _directInCall = _wasOverdue ? _directInCall : _directInCall / 4;
        return true;
    }

    /// <summary>Whether a flush is to wait for the end of what its thread is doing.</summary>
    /// <param name="thread">The thread.</param>
    /// <param name="isInCall">Whether that is inside of <see cref="UserCalls"/>, or a work item of the pool otherwise.</param>
    /// <param name="next">What the caller has to do as soon as it has left the gate.</param>
    internal bool TryJoin(int thread, bool isInCall, out Preparation next)
    {
        next = Preparation.None;
        if (_overdueThread == thread)
        {
            // Who has blocked or computed is not waited for again before he comes back.
            return false;
        }

        if (Waits && !_isAtEnd && _thread != thread)
        {
            // Nobody waits for the end of another thread's work.
            return false;
        }

        // User code takes along what waits for its turn in the pool: its own end is sure to come.
        if (Waits && !(_isAtEnd && isInCall))
        {
            _flushes++;
            (_wastedDeferrals, _direct) = (0, 0);
            return true;
        }

        if (isInCall)
        {
            if (_wasOverdue)
            {
                _wasOverdue = false;
                _directInCall = Math.Min((4 * _directInCall) + 3, MaxDirect);
                _directInCallLeft = _directInCall;
            }

            if (_directInCallLeft > 0)
            {
                _directInCallLeft--;
                return false;
            }

            next = Preparation.List;
        }
        else if (_directLeft > 0)
        {
            _directLeft--;
            _directThread = thread;
            return false;
        }
        else if (_queuedBy != 0 && _queuedBy != thread && !_isAtEnd)
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
        _isAtEnd = false;
        _isInCall = isInCall;
        _wait++;
        next |= TryBeginMonitoring();
        return true;
    }

    /// <summary>The monitor has sent something, and there is more: it looks again, unless the thread that has blocked sends it before.</summary>
    /// <returns>False when that thread is through by now, and will not.</returns>
    internal bool TryRenew()
    {
        if (_overdueThread == 0)
        {
            return false;
        }

        _thread = _overdueThread;
        _wait++;
        return _isMonitored = true;
    }

    /// <summary>A thread that others wait for has sent enough, and there is more: whoever comes first sends it, the next flush, the thread pool or the monitor.</summary>
    /// <returns>What the caller has to do as soon as it has left the gate.</returns>
    internal Preparation HandToAny()
    {
        _thread = Nobody;
        _isInCall = _isAtEnd = false;
        _wait++;
        return TryBeginMonitoring();
    }

    private Preparation TryBeginMonitoring()
    {
        var begins = !_isMonitored;
        _isMonitored = true;
        return begins ? Preparation.Monitor : Preparation.None;
    }

    /// <summary>Nothing waits any more: it is being sent, or never will be.</summary>
    internal void End() => _thread = 0;

    /// <summary>User code is about to run: whoever has blocked earlier is through, or is another one.</summary>
    internal void NoteUserCall() => _overdueThread = 0;

    /// <summary>The reader is about to wait for more input.</summary>
    /// <param name="thread">The thread that reads.</param>
    /// <param name="isInCall">Whether that is in a call of <see cref="UserCalls"/>.</param>
    /// <param name="isInBatch">Whether the call is one of several, after which that thread sends: it is likely to come back now.</param>
    /// <returns>Whether something waits for that thread, and has to leave first.</returns>
    internal bool IsAnswer(int thread, bool isInCall, bool isInBatch)
    {
        var isAnswer = _thread == thread;
        if (isInBatch && !_isAtEnd)
        {
            return false;
        }

        if (!isInCall && (isAnswer || _directThread == thread))
        {
            // Whoever flushes and reads in turns has one of these for each answer, however often it stays alone.
            (_wastedDeferrals, _direct, _directLeft) = (0, 0, 0);
        }

        return isAnswer;
    }

    /// <summary>It has left the queue of the pool.</summary>
    /// <param name="again">Whether it is to go there once more, to the end.</param>
    /// <returns>Whether something waits for that, and is to be sent.</returns>
    internal bool TryDequeue(out bool again)
    {
        var isDue = Waits && _thread == _queuedBy;
        if (_queuedBy == Environment.CurrentManagedThreadId)
        {
            _overdueThread = 0;
        }

        again = isDue && _flushes == 1 && !_isAtEnd;
        _isAtEnd = again;
        if (again)
        {
            return false;
        }

        _queuedBy = 0;
        if (isDue && _flushes == 1 && ++_wastedDeferrals > MaxWastedDeferrals)
        {
            _direct = Math.Min((2 * _direct) + 1, MaxDirect);
            _directLeft = _direct;
        }

        return isDue;
    }

    /// <summary>The monitor looks.</summary>
    /// <param name="isOverdue">Whether it is to be sent now.</param>
    /// <returns>Whether to look again.</returns>
    internal bool Check(out bool isOverdue)
    {
        isOverdue = Waits && _seen == _wait;
        if (isOverdue && !_isAtEnd)
        {
            _overdueThread = _thread;
            _wasOverdue |= _isInCall;
        }

        _seen = _wait;
        return _isMonitored = Waits && !isOverdue;
    }

    void IThreadPoolWorkItem.Execute() => writer.SendQueued();

    bool IWatched.Check() => writer.CheckDeferred();

    /// <summary>Sends what waits for the calling thread, which is through with user code.</summary>
    internal void Send() => writer.SendDeferred();

    /// <summary>What has to be done for a wait that has begun.</summary>
    [Flags]
    internal enum Preparation : byte
    {
        None = 0,

        /// <summary>It goes to the end of the user code.</summary>
        List = 1,

        /// <summary>It goes to the queue of the pool, before everything else of this thread's.</summary>
        Queue = 2,

        /// <summary>It goes to the monitor.</summary>
        Monitor = 4,
    }
}
