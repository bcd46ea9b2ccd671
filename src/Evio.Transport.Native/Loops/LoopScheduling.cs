namespace Evio.Transport.Native;

/// <summary>Where a group runs the code of its users that may block: what <see cref="EventLoop.Invoke"/> is given, posted calls and timers.</summary>
public enum LoopScheduling
{
    /// <summary>On the loop's own thread. A call that blocks stalls everything on its loop.</summary>
    Inline,

    /// <summary>
    /// <see cref="EventLoop.Invoke"/>: on the thread pool, a whole batch as one work item, with further workers when one does not come back. Posted calls and
    /// timers: on the loop's thread, which they must not block.
    /// </summary>
    ThreadPool,

    /// <summary>
    /// On the loop's own thread, as <see cref="Inline"/>; but a thread that is in the same call for one to five milliseconds loses its loop to another
    /// thread, which goes on where it was, and the call ends beside the loop.
    /// </summary>
    Adaptive,
}
