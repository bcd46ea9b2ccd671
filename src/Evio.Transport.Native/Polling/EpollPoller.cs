using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Polling;

/// <summary>The poller on epoll(7), with an eventfd(2) as its wake-up.</summary>
internal sealed unsafe class EpollPoller : Poller
{
    private const int EPOLL_CLOEXEC = 0x80000;
    private const int EPOLL_CTL_ADD = 1;
    private const int EPOLL_CTL_DEL = 2;
    private const int EPOLL_CTL_MOD = 3;

    private const uint EPOLLIN = 0x1;
    private const uint EPOLLPRI = 0x2;
    private const uint EPOLLOUT = 0x4;
    private const uint EPOLLERR = 0x8;
    private const uint EPOLLHUP = 0x10;
    private const uint EPOLLRDHUP = 0x2000;
    private const uint EPOLLET = 1u << 31;

    private readonly int _epoll;
    private readonly int _wakeUp;
    private readonly Lock _wakeLock = new();

    /// <summary>
    /// The events of the last wait, in unmanaged memory: <see cref="Poller.MaxEvents"/> times <see cref="EpollEvent.Size"/> bytes.
    /// </summary>
    private byte* _events;

    internal EpollPoller()
    {
        _epoll = Libc.epoll_create1(EPOLL_CLOEXEC);
        if (_epoll < 0)
        {
            throw Errno.ToException(Errno.Last, "No epoll instance could be created.");
        }

        _wakeUp = Libc.eventfd(0, Linux.EFD_CLOEXEC | Linux.EFD_NONBLOCK);
        if (_wakeUp < 0)
        {
            var errno = Errno.Last;
            _ = Libc.close(_epoll);
            throw Errno.ToException(errno, "No eventfd could be created for a loop's wake-up.");
        }

        // Edge-triggered: each write is an event of its own. So the counter needs no read, which saves a system call for each wake-up.
        var result = Add(_wakeUp, EPOLLIN | EPOLLET, WakeToken);
        if (result != 0)
        {
            _ = Libc.close(_wakeUp);
            _ = Libc.close(_epoll);
            throw Errno.ToException(result, "The wake-up could not be registered with epoll.");
        }

        _events = (byte*)NativeMemory.AllocZeroed(MaxEvents, (nuint)EpollEvent.Size);
    }

    internal override int RegisterStream(int descriptor, ulong token) =>
        Add(descriptor, EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET, token);

    internal override int RegisterListener(int descriptor, ulong token) => Add(descriptor, EPOLLIN, token);

    private int Add(int descriptor, uint events, ulong token)
    {
        var epollEvent = stackalloc byte[EpollEvent.MaxSize];
        EpollEvent.Write(epollEvent, events, token);
        var errno = Libc.epoll_ctl(_epoll, EPOLL_CTL_ADD, descriptor, epollEvent) < 0 ? Errno.Last : 0;
        if (errno == Errno.EEXIST)
        {
            // An earlier deregistration has failed, and the descriptor is still registered with its old events and token.
            errno = Libc.epoll_ctl(_epoll, EPOLL_CTL_MOD, descriptor, epollEvent) < 0 ? Errno.Last : 0;
        }

        return errno;
    }

    internal override void Deregister(int descriptor)
    {
        // Kernels before 2.6.9 want a non-null event here, too.
        var ignored = stackalloc byte[EpollEvent.MaxSize];

        // This fails because there is nothing to deregister: the owner of an inherited descriptor may have closed it, and its number may be
        // in use for another file. If it ever fails for another reason, events with a removed token are dropped, and a listener accepts
        // earlier than it should.
        _ = Libc.epoll_ctl(_epoll, EPOLL_CTL_DEL, descriptor, ignored);
    }

    internal override int Wait(int timeoutMilliseconds)
    {
        var count = Libc.epoll_wait(_epoll, _events, MaxEvents, timeoutMilliseconds);
        return count >= 0 ? WaitSucceeded(count) : WaitFailed(Errno.Last, nameof(Libc.epoll_wait));
    }

    internal override (ulong Token, ReadyEvents Events) GetEvent(int index)
    {
        Debug.Assert((uint)index < MaxEvents);
        var epollEvent = _events + (index * EpollEvent.Size);
        return (EpollEvent.Token(epollEvent), Translate(EpollEvent.Events(epollEvent)));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ReadyEvents Translate(uint events)
    {
        // The common case, a stream that became readable (and is writable, as it nearly always is), without a branch per bit.
        if ((events & ~(EPOLLIN | EPOLLOUT)) == 0)
        {
            return (ReadyEvents)((events & EPOLLIN) | ((events & EPOLLOUT) >> 1));
        }

        var ready = ReadyEvents.None;
        ready |= (events & EPOLLIN) != 0 ? ReadyEvents.Readable : 0;
        ready |= (events & EPOLLOUT) != 0 ? ReadyEvents.Writable : 0;
        ready |= (events & EPOLLRDHUP) != 0 ? ReadyEvents.PeerClosed : 0;
        ready |= (events & EPOLLHUP) != 0 ? ReadyEvents.HangUp : 0;
        ready |= (events & EPOLLERR) != 0 ? ReadyEvents.Error : 0;
        ready |= (events & EPOLLPRI) != 0 ? ReadyEvents.Urgent : 0;
        return ready;
    }

    internal override void Wake()
    {
        // The lock keeps a delayed waker from writing to another file that has the descriptor's number after Dispose.
        lock (_wakeLock)
        {
            if (_events is not null)
            {
                WriteWakeUp();
            }
        }
    }

    private void WriteWakeUp()
    {
        ulong one = 1;
        var failures = 0;
        while (Libc.write(_wakeUp, &one, sizeof(ulong)) < 0)
        {
            var errno = Errno.Last;
            if (errno == Errno.EAGAIN)
            {
                // The counter is at its maximum, 2^64 - 2 (eventfd(2)). It is emptied, and the write is repeated.
                ulong counter;
                _ = Libc.read(_wakeUp, &counter, sizeof(ulong));
            }

            if (errno != Errno.EINTR && ++failures == MaxFailures)
            {
                throw Errno.ToException(errno, $"A loop's wake-up failed (errno {errno}).");
            }
        }
    }

    public override void Dispose()
    {
        lock (_wakeLock)
        {
            if (_events is null)
            {
                return;
            }

            NativeMemory.Free(_events);
            _events = null;
            _ = Libc.close(_wakeUp);
            _ = Libc.close(_epoll);
        }
    }
}
