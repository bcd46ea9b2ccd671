namespace Evio.Transport.Native.Loops;

/// <summary>
/// Keeps the loop with the calling thread while user code runs that is not a call of its own: a datagram's callback,
/// <see cref="Events.PreWrite"/>, a notification, a metrics listener.
/// </summary>
/// <remarks>
/// After such code the reactor goes on as the loop's owner, and uses what belongs to the loop. So the code must not give the loop away,
/// even if it closes another connection or calls <see cref="EventLoop.Invoke"/>. While a hold lasts, no call that may block begins on the
/// thread. Such calls are posted, or handed to the thread pool. Holds nest. On a thread that runs no loop, a hold does nothing.
/// </remarks>
internal readonly ref struct LoopHold
{
    private readonly LoopThread? _thread;

    private LoopHold(LoopThread? thread) => _thread = thread;

    internal static LoopHold Begin()
    {
        var thread = LoopThread.Current;
        if (thread is not null)
        {
            thread.Holds++;
            thread.NoteKept(1);
        }

        return new LoopHold(thread);
    }

    public void Dispose()
    {
        if (_thread is not null)
        {
            _thread.NoteKept(-1);
            _thread.Holds--;
        }
    }
}
