namespace Evio.Transport.Native;

/// <summary>
/// Deferred work, such as output that waits for more, which the monitor of the loops finishes when its own thread does not
/// (<see cref="EventLoop.Watch"/>).
/// </summary>
public interface IWatched
{
    /// <summary>Finishes the work if it was pending at the previous check, too.</summary>
    /// <returns>Whether to check again.</returns>
    /// <remarks>
    /// Called every one to four milliseconds, on the thread that monitors all loops of the group. It must not block, and must hand
    /// application code to other threads.
    /// </remarks>
    bool Check();
}
