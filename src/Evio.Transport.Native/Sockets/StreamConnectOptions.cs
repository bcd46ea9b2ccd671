namespace Evio.Transport.Native;

/// <summary>How an outbound connection is made.</summary>
public sealed class StreamConnectOptions
{
    /// <summary>Whether TCP sends small segments at once (<c>TCP_NODELAY</c>, tcp(7)). Defaults to <see langword="true"/>.</summary>
    public bool NoDelay { get; set; } = true;

    /// <summary>
    /// The longest time of an attempt to connect to one address. After it the attempt fails with
    /// <see cref="System.Net.Sockets.SocketError.TimedOut"/>, and the next address of a name is tried. Defaults to
    /// <see cref="Timeout.InfiniteTimeSpan"/>: only the kernel limits the time.
    /// </summary>
    public TimeSpan ConnectTimeout { get; set; } = Timeout.InfiniteTimeSpan;

    /// <summary>
    /// The loop that will own the connection, one of the group's. <see langword="null"/>, the default, lets the group choose.
    /// </summary>
    /// <remarks>
    /// A proxy that gives both sides of a conversation to one loop passes bytes from one to the other without a hand-over between threads.
    /// </remarks>
    public EventLoop? Loop { get; set; }
}
