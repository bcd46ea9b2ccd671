namespace Evio.Transport.Native;

/// <summary>What an <see cref="ILoopCall"/> cost the last time, by which an adaptive group decides where it is made the next time.</summary>
public enum LoopCallCost
{
    /// <summary>Little: it is made on the loop's thread.</summary>
    Brief,

    /// <summary>
    /// It kept its thread for more than four milliseconds, and waited for something for a part of them, or nobody has measured yet what it did: the loop goes on with another thread
    /// before the call begins.
    /// </summary>
    Blocking,

    /// <summary>
    /// It took more than four milliseconds, and a processor for three quarters of them: it is made beside the loop, as a blocking one, but waits until fewer such calls run than there are processors (or half of
    /// <see cref="EventLoopGroupOptions.MaxBlockedThreads"/>, if that is less), for half a second at most. More of them at once would only take turns, and the loops would have to wait for theirs.
    /// </summary>
    CpuBound,

    /// <summary>
    /// Little, but what follows it runs on the thread pool, as its maker has found out, and says: it is made there, together with others. Where the thread pool has no thread for it within some
    /// milliseconds, it is made on the loop.
    /// </summary>
    Awaiting,
}
