namespace Evio.Transport.Native;

/// <summary>What the kernel reports of a descriptor. Several may come at once.</summary>
[Flags]
public enum ReadyEvents
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Bytes, the end of the input or an error can be received (<c>EPOLLIN</c>).</summary>
    Readable = 1,

    /// <summary>Bytes can be sent (<c>EPOLLOUT</c>).</summary>
    Writable = 2,

    /// <summary>The peer will send no more (<c>EPOLLRDHUP</c>). Bytes that it sent before may still be unread.</summary>
    PeerClosed = 4,

    /// <summary>Both directions are shut (<c>EPOLLHUP</c>). Bytes may still be unread.</summary>
    HangUp = 8,

    /// <summary>An error waits to be collected by the next receive or send (<c>EPOLLERR</c>).</summary>
    Error = 16,

    /// <summary>
    /// Urgent data arrived (<c>EPOLLPRI</c>). A receive stops short at the urgent mark (tcp(7)), so that a short read no longer means that the
    /// socket is drained.
    /// </summary>
    Urgent = 32,
}
