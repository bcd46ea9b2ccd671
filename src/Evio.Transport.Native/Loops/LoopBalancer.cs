namespace Evio.Transport.Native.Loops;

/// <summary>
/// Chooses the loop that will own a connection, and counts the connection there at once. So simultaneous accepts on several loops see each
/// other's choice, and round-robin and least-connections are exact. A loop that has ended gets no connection while there is another one.
/// </summary>
internal sealed class LoopBalancer(EventLoop[] loops, LoadBalance balance)
{
    private readonly Lock _lock = new();
    private int _next;

    /// <param name="chosenByKernel">
    /// The loop that accepted, if each loop has a listening socket of its own; otherwise <see langword="null"/>. The kernel has already
    /// chosen it at random.
    /// </param>
    /// <param name="accepting">The loop that accepted. It takes the connection if no other loop may.</param>
    /// <param name="inTransit">
    /// The connections on their way to the loops. The connection is counted there if another loop than <paramref name="accepting"/> gets
    /// it. A loop without room is skipped.
    /// </param>
    internal EventLoop Assign(EventLoop? chosenByKernel = null, EventLoop? accepting = null, ConnectionsInTransit? inTransit = null)
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
                LoadBalance.RoundRobin => NextWithRoom(ref _next, accepting, inTransit),
                LoadBalance.LeastConnections => Least(accepting ?? chosenByKernel ?? loops[0], accepting, inTransit),
                _ => AnyWithRoom(accepting, inTransit),
            };

            owner.ConnectionAdded();
            if (owner != accepting)
            {
                inTransit?.Begin(owner);
            }

            return owner;
        }
    }

    private static bool MayTake(EventLoop loop, EventLoop? accepting, ConnectionsInTransit? inTransit) =>
        !loop.HasEnded && (loop == accepting || inTransit is null || inTransit.HasRoom(loop));

    private EventLoop AnyWithRoom(EventLoop? accepting, ConnectionsInTransit? inTransit)
    {
        var next = Random.Shared.Next(loops.Length);
        return NextWithRoom(ref next, accepting, inTransit);
    }

    private EventLoop NextWithRoom(ref int next, EventLoop? accepting, ConnectionsInTransit? inTransit)
    {
        for (var i = 0; i < loops.Length; i++)
        {
            var loop = loops[next];
            next = (next + 1) % loops.Length;
            if (MayTake(loop, accepting, inTransit))
            {
                return loop;
            }
        }

        return accepting ?? loops[next];
    }

    /// <param name="preferred">The loop to take among equals. If the accepting loop keeps the connection, there is no hand-over.</param>
    /// <param name="accepting">As for <see cref="Assign"/>.</param>
    /// <param name="inTransit">As for <see cref="Assign"/>.</param>
    private EventLoop Least(EventLoop preferred, EventLoop? accepting, ConnectionsInTransit? inTransit)
    {
        var least = preferred;
        var fewest = MayTake(preferred, accepting, inTransit) ? least.ConnectionCount : int.MaxValue;
        for (var i = 0; i < loops.Length && fewest > 0; i++)
        {
            var count = loops[i].ConnectionCount;
            if (count < fewest && MayTake(loops[i], accepting, inTransit))
            {
                (least, fewest) = (loops[i], count);
            }
        }

        return least;
    }
}
