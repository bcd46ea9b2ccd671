namespace Evio.Transport.Native;

/// <summary>Which loop of a group becomes the owner of a newly accepted connection.</summary>
public enum LoadBalance
{
    /// <summary>
    /// No order is promised. For TCP the kernel picks the loop by its <c>SO_REUSEPORT</c> hash over both addresses and ports, and no
    /// hand-over takes place. If there is a single listening descriptor, a loop is drawn at random.
    /// </summary>
    Random,

    /// <summary>The loops in strict rotation: over any period their numbers of accepted connections differ by at most one.</summary>
    RoundRobin,

    /// <summary>
    /// The loop that owns the fewest open connections at the moment of the accept. Among equals, the loop that accepted, then the lowest
    /// index.
    /// </summary>
    LeastConnections,
}
