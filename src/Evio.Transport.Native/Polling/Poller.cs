using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Polling;

/// <summary>
/// The kernel's readiness notification: register a stream, register a listener, deregister, wait, wake, dispose. Registration and
/// <see cref="Wait"/> are called on the loop; <see cref="Wake"/> may be called from any thread until the poller is disposed.
/// </summary>
internal abstract class Poller : IDisposable
{
    /// <summary>The token of the poller's own wake-up. No registration gets it.</summary>
    internal const ulong WakeToken = 0;

    /// <summary>The largest number of events that one wait brings.</summary>
    internal const int MaxEvents = 256;

    /// <summary>The environment variable that chooses the poller of groups with <see cref="PollerKind.Auto"/>.</summary>
    internal const string Variable = "EVIO_POLLER";

    /// <summary>
    /// The number of calls in a row that may fail with an error that only a defect causes (EBADF, EFAULT, EINVAL...). The defect is in the
    /// poller, or in code that closed its descriptor. An error that passes costs no connection. An error that stays is reported, and the
    /// call is not repeated for ever.
    /// </summary>
    private protected const int MaxFailures = 10;

    private int _failedWaits;

    internal static bool IsSupported => Platform.HasPoller;

    /// <exception cref="PlatformNotSupportedException">This system has no such poller.</exception>
    internal static Poller Create(PollerKind kind) => Resolve(kind, Environment.GetEnvironmentVariable(Variable)) switch
    {
        PollerKind.Kqueue => new KqueuePoller(),
        _ when Platform.IsLinux => new EpollPoller(),
        _ => throw new PlatformNotSupportedException("There is no epoll on this system."),
    };

    /// <summary>Replaces <see cref="PollerKind.Auto"/> by the poller of the environment variable, or else by the system's own.</summary>
    internal static PollerKind Resolve(PollerKind kind, string? variable) => (kind, variable) switch
    {
        (not PollerKind.Auto, _) => kind,
        (_, null or "") => Platform.IsLinux ? PollerKind.Epoll : PollerKind.Kqueue,
        (_, "epoll") => PollerKind.Epoll,
        (_, "kqueue") => PollerKind.Kqueue,
        _ => throw new PlatformNotSupportedException($"{Variable} is {variable}; it must be epoll or kqueue."),
    };

    /// <summary>
    /// Watches a stream. Every change of readiness, in either direction, is reported once (edge-triggered). After an event, the owner has
    /// to receive or send until the kernel says that it would block or transfers less than asked.
    /// </summary>
    /// <returns>0, or the error number.</returns>
    internal abstract int RegisterStream(int descriptor, ulong token);

    /// <summary>Watches a descriptor whose connections or datagrams are reported for as long as any waits (level-triggered).</summary>
    /// <returns>0, or the error number.</returns>
    internal abstract int RegisterListener(int descriptor, ulong token);

    /// <summary>
    /// Stops watching a descriptor that stays open. A closed descriptor needs no deregistration: the kernel removes it.
    /// </summary>
    internal abstract void Deregister(int descriptor);

    /// <summary>Waits for events and keeps them for <see cref="GetEvent"/>.</summary>
    /// <param name="timeoutMilliseconds">The longest wait. 0 does not wait, −1 waits without limit.</param>
    /// <returns>The number of events; 0 when the time is up or a signal interrupted.</returns>
    internal abstract int Wait(int timeoutMilliseconds);

    /// <summary>The event at <paramref name="index"/> of the last <see cref="Wait"/>.</summary>
    internal abstract (ulong Token, ReadyEvents Events) GetEvent(int index);

    /// <summary>Ends the current or the next <see cref="Wait"/>.</summary>
    internal abstract void Wake();

    public abstract void Dispose();

    private protected int WaitSucceeded(int count)
    {
        _failedWaits = 0;
        return count;
    }

    /// <summary>Handles a failed wait. A signal counts as a wait without events, and so does an error that passes.</summary>
    /// <exception cref="System.Net.Sockets.SocketException">
    /// It was the last of <see cref="MaxFailures"/> in a row: the loop cannot go on.
    /// </exception>
    private protected int WaitFailed(int errno, string call)
    {
        if (errno != Errno.EINTR)
        {
            if (++_failedWaits == MaxFailures)
            {
                throw Errno.ToException(errno, $"{call} failed (errno {errno}).");
            }

            Thread.Sleep(1);
        }

        return 0;
    }
}
