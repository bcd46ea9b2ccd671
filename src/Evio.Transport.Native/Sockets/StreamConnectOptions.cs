namespace Evio.Transport.Native;

/// <summary>How an outbound connection is made.</summary>
public sealed class StreamConnectOptions
{
    /// <summary>Whether TCP sends small segments at once (<c>TCP_NODELAY</c>, tcp(7)). Defaults to <see langword="true"/>.</summary>
    public bool NoDelay { get; set; } = true;

    /// <summary>The loop that will own the connection, one of the group's. <see langword="null"/>, the default, lets the group choose.</summary>
    /// <remarks>
    /// A proxy that gives both sides of a conversation to one loop passes bytes from one to the other without a hand-over between threads.
    /// </remarks>
    public EventLoop? Loop { get; set; }
}
