namespace Evio.Transport.Native.Loops;

/// <summary>
/// Names the loop that will own a connection and counts it there at once, so that simultaneous accepts on several loops see each other's
/// choice: round-robin and least-connections are exact.
/// </summary>
internal sealed class LoopBalancer(EventLoop[] loops, LoadBalance balance)
{
    private readonly Lock _lock = new();
    private int _next;

    /// <param name="chosenByKernel">
    /// The loop that accepted, if each loop has a listening socket of its own, so that it is already a random one; otherwise <see langword="null"/>.
    /// </param>
    internal EventLoop Assign(EventLoop? chosenByKernel = null)
    {
        if (balance == LoadBalance.Random && chosenByKernel is not null)
        {
            chosenByKernel.ConnectionAdded();
            return chosenByKernel;
        }

        lock (_lock)
        {
            var owner = balance switch
            {
                LoadBalance.RoundRobin => loops[_next++ % loops.Length],
                LoadBalance.LeastConnections => Least(chosenByKernel ?? loops[0]),
                _ => loops[Random.Shared.Next(loops.Length)],
            };

            _next %= loops.Length;
            owner.ConnectionAdded();
            return owner;
        }
    }

    /// <param name="preferred">The one among equals: a loop that keeps what it has accepted hands nothing over.</param>
    private EventLoop Least(EventLoop preferred)
    {
        var least = preferred;
        var fewest = least.ConnectionCount;
        for (var i = 0; i < loops.Length && fewest > 0; i++)
        {
            var count = loops[i].ConnectionCount;
            if (count < fewest)
            {
                (least, fewest) = (loops[i], count);
            }
        }

        return least;
    }
}
