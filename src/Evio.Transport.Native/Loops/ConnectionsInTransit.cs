namespace Evio.Transport.Native.Loops;

/// <summary>How many of a listener's connections are on their way to each loop: accepted, and not yet delivered there.</summary>
/// <remarks>
/// A loop that does not come to them, because it is held by a handler, gets no more than <paramref name="limit"/>: the balancer leaves it out until it has taken
/// one. A loop that accepts is never left out of its own connections, since nothing is on its way then.
/// </remarks>
internal sealed class ConnectionsInTransit(int loopCount, int limit)
{
    private readonly int[] _counts = new int[loopCount];

    internal bool HasRoom(EventLoop loop) => Volatile.Read(ref _counts[loop.Index]) < limit;

    /// <summary>Counts a connection that is for a loop. Under the balancer's lock, so that the limit is exact.</summary>
    internal void Begin(EventLoop loop) => Interlocked.Increment(ref _counts[loop.Index]);

    /// <summary>A connection was delivered to its loop, or is given up.</summary>
    internal void End(EventLoop loop) => Interlocked.Decrement(ref _counts[loop.Index]);
}
