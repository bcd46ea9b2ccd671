namespace Evio.Transport.Native;

/// <summary>What the loops learn from which descriptors are ready.</summary>
public enum PollerKind
{
    /// <summary>The system's own: epoll on Linux, kqueue on macOS and FreeBSD.</summary>
    /// <remarks>The environment variable <c>EVIO_POLLER</c> (<c>epoll</c> or <c>kqueue</c>) chooses in its place.</remarks>
    Auto,

    /// <summary>epoll(7): Linux only.</summary>
    Epoll,

    /// <summary>
    /// kqueue(2): macOS and FreeBSD; on Linux with the library that the environment variable <c>EVIO_KQUEUE_LIBRARY</c> names, which has <c>kqueue</c> and
    /// <c>kevent</c> with macOS's <c>struct kevent</c>.
    /// </summary>
    Kqueue,
}
