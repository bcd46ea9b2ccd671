namespace Evio.Transport.Native;

/// <summary>
/// What an <see cref="ILoopCall"/> cost the last time it ran. An adaptive group decides by it where the call runs the next time.
/// </summary>
public enum LoopCallCost
{
    /// <summary>Little. The call runs on the loop's thread.</summary>
    Brief,

    /// <summary>
    /// More than four milliseconds, in which the call waited for something; or the call was not measured yet. The loop is handed to another
    /// thread before the call runs.
    /// </summary>
    Blocking,

    /// <summary>
    /// More than four milliseconds, three quarters of them on a processor. The call runs beside the loop, as a blocking one does. It is
    /// queued, for half a second at most, while as many CPU-bound calls run as there are processors, or half of
    /// <see cref="EventLoopGroupOptions.MaxBlockedThreads"/> if that is less.
    /// </summary>
    CpuBound,

    /// <summary>
    /// Little, and what follows the call runs on the thread pool. Answered by the call itself, never set by the loop. The call runs on the
    /// thread pool, in a batch with others; on the loop's thread if the thread pool has no thread for it within some milliseconds.
    /// </summary>
    Awaiting,
}
