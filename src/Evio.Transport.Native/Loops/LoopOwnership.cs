namespace Evio.Transport.Native.Loops;

/// <summary>Which thread owns a loop, and how the loop changes owners.</summary>
/// <remarks>
/// <para>
/// One thread at a time owns everything that belongs to a loop. In an adaptive group the owner can lose the loop while it executes a call:
/// the monitor retakes the loop from a call that does not return, and gives it to another thread. Code after a call therefore checks the
/// result of the method that ended the call, and code that may run inside of a call asks by <see cref="Enter"/>.
/// </para>
/// <code>
///  the calling thread...                          Enter              the loop meanwhile
///  runs another loop, or none                     no owner           -
///  runs this loop, in no call                     owner              it stays the thread's
///  is in a call, and still the owner              owner              as above; after Dispose the call goes on
///  is in a call, and has lost the loop            no owner           it is another thread's
/// </code>
/// <para>
/// <see cref="TryBeginCall"/> begins a call in which the loop can be lost, if the group is adaptive, and <see cref="TryReturnFromCall"/>
/// ends it. <see cref="TryHandOff"/> gives the loop away before a call that is expected to be slow. A <see cref="LoopHold"/> forbids both
/// on its thread. One word holds the owner's epoch and changes by compare-and-swap (<see cref="OwnershipWord"/>).
/// </para>
/// </remarks>
internal sealed class LoopOwnership(EventLoop loop, LoopThreads threads, bool isAdaptive) : IMonitored
{
    private OwnershipWord _ownership;

    // The owner, written by the thread that appointed it; and the word of the monitor's last sample.
    private LoopThread? _thread;
    private long _seen;

    /// <summary>Whether the caller owns the loop, or is in a call and has not lost the loop so far. From any thread.</summary>
    internal bool IsCurrent => LoopThread.Current is { } thread && thread.Loop == loop && _ownership.IsEpoch(thread.Epoch);

    /// <summary>Whether the calling thread is on the loop: it owns the loop and is in no call.</summary>
    internal bool IsOwnedByCaller => LoopThread.Current is { InCall: false } thread && thread.Loop == loop;

    /// <summary>
    /// Whether this loop hands calls that may block to the thread pool: so many threads are blocked, or the system starts none. By the
    /// owner.
    /// </summary>
    internal bool IsSaturated => threads.IsSaturated && !loop.HasEnded;

    /// <summary>
    /// The calling thread, if it is the owner and may begin a call in which it can lose the loop: it is in no call, and under no
    /// <see cref="LoopHold"/>.
    /// </summary>
    internal LoopThread? ThreadThatMayCall =>
        isAdaptive && LoopThread.Current is { InCall: false, Holds: 0 } thread && thread.Loop == loop && !loop.HasEnded ? thread : null;

    /// <summary>
    /// Whether a <see cref="LoopHold"/> of the calling thread keeps this loop, which could be lost otherwise. By the owner.
    /// </summary>
    internal bool IsHeld => isAdaptive && !loop.HasEnded && LoopThread.Current is { Holds: > 0 } thread && thread.Loop == loop;

    /// <summary>The unique number of the user code that keeps the loop at the moment; 0 when there is none. From any thread.</summary>
    internal long KeptCall => Volatile.Read(ref _thread)?.KeptCall ?? 0;

    /// <summary>Whether the loop has had a thread.</summary>
    internal bool HasBegun => _thread is not null;

    /// <summary>Gives the loop its first owner.</summary>
    internal void Begin()
    {
        _thread = threads.TakeFirst();
        _thread.Assign(loop, 0);
    }

    /// <summary>Asks for the loop, until the result is disposed of. From any thread.</summary>
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
        // A nested call may have lost the loop. Then there is nothing to resume.
        if (thread.Loop == loop)
        {
            thread.InCall = true;
            _ownership.ResumeCall(thread.Epoch);
        }
    }

    /// <summary>Begins a call in which the loop can be lost. By the owner.</summary>
    internal void BeginCall(LoopThread thread)
    {
        thread.InCall = true;
        thread.Epoch = _ownership.BeginCall(thread.Epoch);
        loop.Monitor.Touch();
    }

    /// <summary>Ends the call.</summary>
    /// <returns>False when another thread owns the loop.</returns>
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
    /// Begins a call for code that is no <see cref="ILoopCall"/>, if the group is adaptive. By the owner, which ends it by
    /// <see cref="TryReturnFromCall"/>.
    /// </summary>
    /// <returns>False when the loop cannot be lost in the code.</returns>
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

    /// <summary>Ends what <see cref="TryBeginCall"/> has begun.</summary>
    /// <param name="begun">The answer of <see cref="TryBeginCall"/>.</param>
    /// <returns>False when another thread owns the loop. The caller must not touch anything that belongs to the loop then.</returns>
    internal bool TryReturnFromCall(bool begun)
    {
        if (begun)
        {
            return TryReturn(LoopThread.Current!);
        }

        LoopThread.NoteKeptCall(-1);
        return true;
    }

    /// <summary>Gives the loop to another thread before a call that is expected to be slow.</summary>
    /// <returns>False when the caller is not the owner, has to keep the loop, or no thread can be had.</returns>
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

        // The thread is taken first, because there may be none. So the loop has an owner at every moment.
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

    /// <summary>Starts a thread on the loop that it owns by now.</summary>
    private void Assign(LoopThread thread, long epoch)
    {
        _thread = thread;
        loop.Meter.TakenOver();
        thread.Assign(loop, epoch);
        threads.NoteHandOver();
    }
}

/// <summary>
/// The answer of <see cref="LoopOwnership.Enter"/>. While one that <see cref="IsOwner"/> is not disposed of, its holder may touch what
/// belongs to the loop. The members that do (registrations, shared blocks) ask for it as an argument, and refuse one whose thread has lost
/// the loop in a call since.
/// </summary>
/// <param name="ownership">The loop's; <see langword="null"/> when the caller is not the owner.</param>
/// <param name="interrupted">The calling thread, if it is in a call, which goes on afterwards.</param>
internal readonly ref struct LoopOwner(LoopOwnership? ownership, LoopThread? interrupted)
{
    /// <summary>Whether the loop is the caller's.</summary>
    internal bool IsOwner => ownership is not null;

    /// <summary>Refuses to go on unless the caller still owns the loop.</summary>
    /// <param name="of">The ownership of the loop in question; without it, any loop's will do.</param>
    /// <exception cref="InvalidOperationException">The caller is not the owner, or not any more.</exception>
    internal void Verify(LoopOwnership? of = null)
    {
        if (ownership?.IsOwnedByCaller != true || (of is not null && of != ownership))
        {
            throw new InvalidOperationException("What belongs to a loop is touched by its owner only.");
        }
    }

    public void Dispose()
    {
        if (interrupted is not null)
        {
            ownership!.ResumeCall(interrupted);
        }
    }
}
