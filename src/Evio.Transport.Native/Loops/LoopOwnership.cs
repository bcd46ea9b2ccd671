namespace Evio.Transport.Native.Loops;

/// <summary>Which thread a loop belongs to at the moment, and how it changes hands.</summary>
/// <remarks>
/// <para>
/// Everything of a loop belongs to one thread at a time. In an adaptive group a call may take it away: the thread that executes the call stays the owner only if it returns before the monitor gives the loop
/// to another thread. So code that comes after a call asks again, by the result of the method that ended the call; and code that may run inside of a call asks by <see cref="Enter"/>.
/// </para>
/// <code>
///  the calling thread...                          Enter              the loop meanwhile
///  runs another loop, or none                     no owner           -
///  runs this loop, in no call                     owner              it stays the thread's
///  is in a call, and still the owner              owner              it stays the thread's until Dispose, then the call goes on
///  is in a call, and has lost the loop            no owner           it is another thread's
/// </code>
/// <para>
/// <see cref="TryBeginCall"/> begins a call in which the loop may be lost, if the group is adaptive, and <see cref="TryReturnFromCall"/> ends it. <see cref="TryHandOff"/> gives the loop away
/// before a call that is expected to take long. <see cref="LoopHold"/> forbids both on its thread. One word says who the owner is, and changes by compare-and-swap (<see cref="OwnershipWord"/>).
/// </para>
/// </remarks>
internal sealed class LoopOwnership(EventLoop loop, LoopThreads threads, bool isAdaptive) : IMonitored
{
    private OwnershipWord _ownership;

    // The owner, as the thread that has made it the owner has written it; and what the monitor saw at the last look.
    private LoopThread? _thread;
    private long _seen;

    /// <summary>Whether the caller is the owner, or was when it began the call that it is in and has not lost the loop so far. From any thread.</summary>
    internal bool IsCurrent => LoopThread.Current is { } thread && thread.Loop == loop && _ownership.IsEpoch(thread.Epoch);

    /// <summary>Whether so many threads are blocked that this loop leaves calls that may block to the thread pool. By the owner.</summary>
    internal bool IsExhausted => threads.IsExhausted && !loop.HasEnded;

    /// <summary>The calling thread, if it is the owner, is in no call and under no <see cref="LoopHold"/>, and may lose the loop in one.</summary>
    internal LoopThread? ThreadThatMayCall =>
        isAdaptive && LoopThread.Current is { InCall: false, Holds: 0 } thread && thread.Loop == loop && !loop.HasEnded ? thread : null;

    /// <summary>Whether the calling thread is under a <see cref="LoopHold"/> on this loop, and the loop is one that could be lost otherwise. By the owner.</summary>
    internal bool IsHeld => isAdaptive && !loop.HasEnded && LoopThread.Current is { Holds: > 0 } thread && thread.Loop == loop;

    /// <summary>The user code that keeps the loop at the moment, by a number that no other call has; 0 when there is none. From any thread.</summary>
    internal long KeptCall => Volatile.Read(ref _thread)?.KeptCall ?? 0;

    /// <summary>Whether the loop has had a thread.</summary>
    internal bool HasBegun => _thread is not null;

    /// <summary>Gives the loop its first owner.</summary>
    internal void Begin()
    {
        _thread = threads.TakeFirst();
        _thread.Assign(loop, 0);
    }

    /// <summary>Asks for leave to touch what belongs to the loop, for as long as the result is not disposed of.</summary>
    internal LoopOwner Enter()
    {
        if (LoopThread.Current is not { } thread || thread.Loop != loop)
        {
            return default;
        }

        if (!thread.InCall)
        {
            return new LoopOwner(this, interrupted: null);
        }

        if (!_ownership.TryReturn(thread.Epoch))
        {
            return default;
        }

        thread.InCall = false;
        return new LoopOwner(this, interrupted: thread);
    }

    /// <summary>Goes on with the call that <see cref="Enter"/> has interrupted.</summary>
    internal void ResumeCall(LoopThread thread)
    {
        // A thread that has lost the loop meanwhile, in a call within, has nothing to go on with.
        if (thread.Loop == loop)
        {
            thread.InCall = true;
            _ownership.ResumeCall(thread.Epoch);
        }
    }

    /// <summary>Begins a call, in which the loop may be lost. By the owner.</summary>
    internal void BeginCall(LoopThread thread)
    {
        thread.InCall = true;
        thread.Epoch = _ownership.BeginCall(thread.Epoch);
        loop.Monitor.Touch();
    }

    /// <summary>Ends the call.</summary>
    /// <returns>False when the loop is another thread's.</returns>
    internal bool TryReturn(LoopThread thread)
    {
        thread.InCall = false;
        if (_ownership.TryReturn(thread.Epoch))
        {
            return true;
        }

        thread.Loop = null;
        return false;
    }

    /// <summary>
    /// Begins a call for code that does not fit an <see cref="ILoopCall"/>, if the group is adaptive. By the owner, which has to
    /// call <see cref="TryReturnFromCall"/>.
    /// </summary>
    /// <returns>False when the code keeps the loop.</returns>
    internal bool TryBeginCall()
    {
        if (ThreadThatMayCall is not { } thread)
        {
            LoopThread.NoteKeptCall(1);
            return false;
        }

        BeginCall(thread);
        return true;
    }

    /// <summary>Ends the call before which <see cref="TryBeginCall"/> was asked.</summary>
    /// <param name="begun">What it has answered.</param>
    /// <returns>False when the loop is another thread's: the caller must not touch what belongs to it any more.</returns>
    internal bool TryReturnFromCall(bool begun)
    {
        if (begun)
        {
            return TryReturn(LoopThread.Current!);
        }

        LoopThread.NoteKeptCall(-1);
        return true;
    }

    /// <summary>Gives the loop to another thread before a call that is expected to take long, which would only hold it up.</summary>
    /// <returns>False when the caller is not the owner, or has to keep the loop.</returns>
    internal bool TryHandOff()
    {
        if (ThreadThatMayCall is not { } thread || threads.Take() is not { } next)
        {
            return false;
        }

        threads.NoteBlocked(thread);
        thread.Loop = null;
        Assign(next, _ownership.HandOff(thread.Epoch));
        return true;
    }

    bool IMonitored.IsBusy => OwnershipWord.IsInCall(_ownership.Observe()) || threads.IsShort;

    MonitorSample IMonitored.Sample()
    {
        threads.Retry();
        var sample = _ownership.Sample(ref _seen);

        // First the thread, which may be hard to get, then the loop, which so is nobody's at no time.
        if (sample == MonitorSample.Stalled && threads.Take() is { } thread)
        {
            if (threads.TryRetake(_thread!, ref _ownership, _seen, out var epoch))
            {
                Assign(thread, epoch);
            }
            else
            {
                threads.Return(thread);
            }
        }

        return sample;
    }

    /// <summary>Has a thread go on with the loop, whose owner it is by now.</summary>
    private void Assign(LoopThread thread, long epoch)
    {
        _thread = thread;
        loop.Meter.TakenOver();
        thread.Assign(loop, epoch);
        threads.NoteTakeOver();
    }
}

/// <summary>The answer of <see cref="LoopOwnership.Enter"/>. Whoever has one that <see cref="IsOwner"/> may touch what belongs to the loop until it is disposed of.</summary>
/// <param name="ownership">The loop's; <see langword="null"/> when the caller is not the owner.</param>
/// <param name="interrupted">The calling thread, if it is in a call, which goes on afterwards.</param>
internal readonly ref struct LoopOwner(LoopOwnership? ownership, LoopThread? interrupted)
{
    /// <summary>Whether the loop is the caller's.</summary>
    internal bool IsOwner => ownership is not null;

    public void Dispose()
    {
        if (interrupted is not null)
        {
            ownership!.ResumeCall(interrupted);
        }
    }
}
