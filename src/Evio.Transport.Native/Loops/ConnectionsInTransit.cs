namespace Evio.Transport.Native.Loops;

/// <summary>Counts a listener's connections on their way to each loop: accepted, and not yet delivered there.</summary>
/// <remarks>
/// A loop that a handler holds does not take its connections. It gets no more than <paramref name="limit"/>: then the balancer skips it
/// until it has taken one. A loop is never skipped for connections that it accepts itself, because these are not in transit.
/// </remarks>
internal sealed class ConnectionsInTransit(int loopCount, int limit)
{
    private readonly int[] _counts = new int[loopCount];

    internal bool HasRoom(EventLoop loop) => Volatile.Read(ref _counts[loop.Index]) < limit;

    /// <summary>Counts a connection on its way to a loop. Under the balancer's lock, so that the limit is exact.</summary>
    internal void Begin(EventLoop loop) => Interlocked.Increment(ref _counts[loop.Index]);

    /// <summary>Ends the transit of a connection, which was delivered to its loop or is given up.</summary>
    internal void End(EventLoop loop) => Interlocked.Decrement(ref _counts[loop.Index]);
}
