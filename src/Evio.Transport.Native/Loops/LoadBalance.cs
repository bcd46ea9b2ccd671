namespace Evio.Transport.Native;

/// <summary>Which loop of a group becomes the owner of a newly accepted connection.</summary>
public enum LoadBalance
{
    /// <summary>
    /// No order is promised. For TCP the kernel's <c>SO_REUSEPORT</c> hash over both addresses and ports picks the loop
    /// and no hand-over takes place; where there is a single listening descriptor a loop is drawn at random.
    /// </summary>
    Random,

    /// <summary>The loops take turns, strictly: over any period their numbers of accepted connections differ by at most one.</summary>
    RoundRobin,

    /// <summary>The loop that owns the fewest open connections at the moment of the accept; the lowest index among equals.</summary>
    LeastConnections,
}
