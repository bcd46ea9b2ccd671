using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>Calls that a thread makes one after the other, and what they have left to be done once for several of them: their sends.</summary>
/// <remarks>
/// <para>
/// A send after another one costs less than one between two handlers. The processor still has the network stack's code in its caches, and the application's does not have to come back after each;
/// and who has to be woken for the first, a peer on the same machine or the other side of a virtual adapter, is mostly awake for the next.
/// </para>
/// <para>
/// But somebody waits for what is left. It is done as soon as the thread has no more calls to make, and otherwise after the first call that ends later than <see cref="Limit"/> after the batch began, or after the last time:
/// what takes longer than that keeps nothing back. Whoever leaves something has it looked after (<see cref="EventLoop.Watch"/>), since a call may block.
/// </para>
/// <para>It belongs to its thread, and not to a loop: a thread that has lost its loop in a call does what it has left itself.</para>
/// </remarks>
internal sealed class CallBatch
{
    /// <summary>For so long calls go on being made while something is left.</summary>
    private static readonly TimeSpan Limit = TimeSpan.FromMicroseconds(500);

    private IThreadPoolWorkItem? _rest;

    // Since when calls have been made; 0 before the first that leaves something, if nobody has said so before.
    private long _since;

    /// <summary>Calls are about to be made, of which there may be several.</summary>
    internal void Begin() => _since = Stopwatch.GetTimestamp();

    /// <summary>Takes note of what a call has left.</summary>
    internal void Leave(IThreadPoolWorkItem? rest, EventLoop loop)
    {
        if (rest is null || rest == _rest)
        {
            return;
        }

        if (_rest is not null)
        {
            // Somebody else's.
            Finish(loop);
        }

        _rest = rest;
        _since = _since == 0 ? Stopwatch.GetTimestamp() : _since;
    }

    /// <summary>Does what is left, if that has waited for long enough. After a call, when there may be others.</summary>
    internal void FinishIfDue(EventLoop loop)
    {
        if (_rest is null)
        {
            return;
        }

        var now = Stopwatch.GetTimestamp();
        if (Stopwatch.GetElapsedTime(_since, now) >= Limit)
        {
            Finish(loop);
            _since = now;
        }
    }

    /// <summary>Does what is left.</summary>
    /// <param name="loop">Who is told of what that throws.</param>
    internal void Finish(EventLoop loop)
    {
        _since = 0;
        if (_rest is not { } rest)
        {
            return;
        }

        _rest = null;
        try
        {
            LoopThread.Persist(
                static rest =>
                {
                    rest.Execute();
                    return true;
                },
                rest);
        }
        catch (Exception exception)
        {
            loop.Report(exception);
        }
    }
}
