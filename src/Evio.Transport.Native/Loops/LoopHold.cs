namespace Evio.Transport.Native.Loops;

/// <summary>
/// Keeps the calling thread's loop while user code runs that is no call of its own: a datagram's callback, <see cref="Events.PreWrite"/>, a notification, a metrics listener.
/// </summary>
/// <remarks>
/// The reactor goes on after such code as the loop's owner, with what belongs to the loop in its hands. So nothing that the code reaches (it may close another
/// connection, or <see cref="EventLoop.Invoke"/> something) may give the loop away. While a hold lasts, no call that may block is begun on the thread:
/// such calls are posted, or left to the thread pool. Holds nest. On a thread that runs no loop, a hold does nothing.
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
