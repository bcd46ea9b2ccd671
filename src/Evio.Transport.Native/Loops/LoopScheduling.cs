namespace Evio.Transport.Native;

/// <summary>
/// Where the loops run application code: Kestrel's handlers, callbacks, and the calls given to <see cref="EventLoop.Invoke"/>.
/// </summary>
/// <remarks>
/// Posted calls and timers run on the loop's own thread in every mode, or on the thread pool while too many threads are blocked. Only with
/// <see cref="Adaptive"/> may they block.
/// </remarks>
public enum LoopScheduling
{
    /// <summary>
    /// On the loop's own thread, as with <see cref="Inline"/>, and safe for code that blocks: a thread that is in the same call for one to
    /// five milliseconds loses its loop to another thread. That thread goes on with the other connections, and the call ends beside the
    /// loop. Calls of a connection whose last call computed for long wait until a processor is free, so that they do not take the loops'
    /// time. <c>MaxBlockedThreads</c> limits the number of threads in such calls.
    /// </summary>
    Adaptive,

    /// <summary>
    /// On the loop's own thread: receive, application and send without a hop, the cheapest way for a request. <b>Code that blocks stalls
    /// every connection of its loop</b>, and code that waits for another connection of the same loop waits for ever. Only for code that
    /// never blocks.
    /// </summary>
    Inline,

    /// <summary>
    /// On the thread pool: the loop hands its ready connections to the pool as one work item, with further workers when one does not come
    /// back. Safe for code that blocks.
    /// </summary>
    ThreadPool,
}
