namespace Evio.Transport.Native;

/// <summary>
/// Something that a thread has left for later, and that another one does in its place if that takes long (<see cref="EventLoop.Watch"/>): output that waits for more to come, for example.
/// </summary>
public interface IWatched
{
    /// <summary>
    /// Looks whether it is still to be done, and does it if it was so at the last look. Called every one to four milliseconds, on the thread that looks after all loops of the group: it
    /// must not block, and is to leave to others whatever runs code of a user's.
    /// </summary>
    /// <returns>Whether to look again.</returns>
    bool Look();
}
