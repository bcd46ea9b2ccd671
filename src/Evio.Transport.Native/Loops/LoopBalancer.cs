namespace Evio.Transport.Native.Loops;

/// <summary>
/// Names the loop that will own a connection and counts it there at once, so that simultaneous accepts on several loops see each other's
/// choice: round-robin and least-connections are exact. A loop that has failed gets none, as long as there is another one.
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
        if (balance == LoadBalance.Random && chosenByKernel is { HasEnded: false })
        {
            chosenByKernel.ConnectionAdded();
            return chosenByKernel;
        }

        lock (_lock)
        {
            var owner = balance switch
            {
                LoadBalance.RoundRobin => Alive(_next++),
                LoadBalance.LeastConnections => Least(chosenByKernel is { HasEnded: false } ? chosenByKernel : Alive(0)),
                _ => Alive(Random.Shared.Next(loops.Length)),
            };

            _next %= loops.Length;
            owner.ConnectionAdded();
            return owner;
        }
    }

    /// <summary>The loop at a place, or the first one after it that has not ended; when all have, the one at the place.</summary>
    private EventLoop Alive(int index)
    {
        for (var i = 0; i < loops.Length; i++)
        {
            var loop = loops[(index + i) % loops.Length];
            if (!loop.HasEnded)
            {
                return loop;
            }
        }

        return loops[index % loops.Length];
    }

    /// <param name="preferred">The one among equals: a loop that keeps what it has accepted hands nothing over.</param>
    private EventLoop Least(EventLoop preferred)
    {
        var least = preferred;
        var fewest = least.ConnectionCount;
        for (var i = 0; i < loops.Length && fewest > 0; i++)
        {
            var count = loops[i].ConnectionCount;
            if (count < fewest && !loops[i].HasEnded)
            {
                (least, fewest) = (loops[i], count);
            }
        }

        return least;
    }
}
