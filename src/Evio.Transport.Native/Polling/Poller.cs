using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Polling;

/// <summary>
/// The kernel's readiness notification, in six verbs: register a stream, register a listener, deregister, wait, wake, dispose.
/// Registration and <see cref="Wait"/> belong to the loop; <see cref="Wake"/> may be called from any thread until the poller is disposed.
/// </summary>
internal abstract class Poller : IDisposable
{
    /// <summary>The token of the poller's own wake-up. No registration gets it.</summary>
    internal const ulong WakeToken = 0;

    /// <summary>How many events one wait can bring.</summary>
    internal const int MaxEvents = 256;

    /// <summary>Chooses the poller of groups that leave it to the system.</summary>
    internal const string Variable = "EVIO_POLLER";

    /// <summary>
    /// How many calls in a row may fail for a reason that only a defect gives (EBADF, EFAULT, EINVAL...), of the poller or of whoever closed its descriptor.
    /// One that passes is to cost no connection; one that stays is to be told, and not to be tried for ever.
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

    /// <summary>What <see cref="PollerKind.Auto"/> stands for.</summary>
    internal static PollerKind Resolve(PollerKind kind, string? variable) => (kind, variable) switch
    {
        (not PollerKind.Auto, _) => kind,
        (_, null or "") => Platform.IsLinux ? PollerKind.Epoll : PollerKind.Kqueue,
        (_, "epoll") => PollerKind.Epoll,
        (_, "kqueue") => PollerKind.Kqueue,
        _ => throw new PlatformNotSupportedException($"{Variable} is {variable}; it must be epoll or kqueue."),
    };

    /// <summary>
    /// Reports every change of readiness, in either direction, once: after an event the owner has to receive or send until the kernel says
    /// that it would block or transfers less than asked.
    /// </summary>
    /// <returns>0, or the error number.</returns>
    internal abstract int RegisterStream(int descriptor, ulong token);

    /// <summary>Reports that connections wait for as long as any waits.</summary>
    /// <returns>0, or the error number.</returns>
    internal abstract int RegisterListener(int descriptor, ulong token);

    /// <summary>
    /// Ends the reports of a descriptor that stays open. One that is closed needs no deregistration: the kernel forgets it.
    /// </summary>
    internal abstract void Deregister(int descriptor);

    /// <summary>Waits for events and keeps them for <see cref="GetEvent"/>.</summary>
    /// <param name="timeoutMilliseconds">The longest wait; 0 only looks, −1 waits without limit.</param>
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

    /// <summary>A signal is no event, and neither is a failure that passes.</summary>
    /// <exception cref="System.Net.Sockets.SocketException">It was the last of <see cref="MaxFailures"/>: the loop cannot go on.</exception>
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
