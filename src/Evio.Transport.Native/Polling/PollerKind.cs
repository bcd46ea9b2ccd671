namespace Evio.Transport.Native;

/// <summary>The kernel interface that tells the loops which descriptors are ready.</summary>
public enum PollerKind
{
    /// <summary>The system's own: epoll on Linux, kqueue on macOS and FreeBSD.</summary>
    /// <remarks>The environment variable <c>EVIO_POLLER</c> (<c>epoll</c> or <c>kqueue</c>) chooses in its place.</remarks>
    Auto,

    /// <summary>epoll(7): Linux only.</summary>
    Epoll,

    /// <summary>
    /// kqueue(2): macOS and FreeBSD. On Linux it needs a library that has <c>kqueue</c> and <c>kevent</c> with macOS's <c>struct
    /// kevent</c>. The environment variable <c>EVIO_KQUEUE_LIBRARY</c> names the library.
    /// </summary>
    Kqueue,
}
