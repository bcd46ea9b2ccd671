namespace Evio.Transport.Native;

/// <summary>What the kernel reports about a descriptor. Several flags may be set.</summary>
[Flags]
public enum ReadyEvents
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Bytes, the end of the input or an error can be received (<c>EPOLLIN</c>, <c>EVFILT_READ</c>).</summary>
    Readable = 1,

    /// <summary>Bytes can be sent (<c>EPOLLOUT</c>, <c>EVFILT_WRITE</c>).</summary>
    Writable = 2,

    /// <summary>
    /// The peer will send no more (<c>EPOLLRDHUP</c>, <c>EV_EOF</c> of reading). Bytes that it sent before may still be unread.
    /// </summary>
    PeerClosed = 4,

    /// <summary>
    /// Both directions are shut (<c>EPOLLHUP</c>), or with kqueue at least this side's (<c>EV_EOF</c> of writing). Bytes may still be
    /// unread.
    /// </summary>
    HangUp = 8,

    /// <summary>An error waits to be collected by the next receive or send (<c>EPOLLERR</c>, <c>EV_EOF</c> with an error).</summary>
    Error = 16,

    /// <summary>
    /// Urgent data arrived (<c>EPOLLPRI</c>; <c>EV_OOBAND</c> on macOS; FreeBSD does not report it). A receive stops short at the urgent
    /// mark (tcp(7)), so a short read no longer means that the socket is drained.
    /// </summary>
    Urgent = 32,
}
