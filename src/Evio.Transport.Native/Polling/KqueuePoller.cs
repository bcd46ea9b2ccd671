using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Polling;

/// <summary>
/// The poller on kqueue(2), with a user event as its wake-up. It reports the two directions of a stream in separate events.
/// </summary>
internal sealed unsafe class KqueuePoller : Poller
{
    private static readonly short EVFILT_USER = Platform.IsFreeBsd ? FreeBsd.EVFILT_USER : Darwin.EVFILT_USER;

    private readonly int _kqueue;
    private readonly Lock _wakeLock = new();

    /// <summary>
    /// The events of the last wait, in unmanaged memory: <see cref="Poller.MaxEvents"/> times <see cref="KernelEvent.Size"/> bytes.
    /// </summary>
    private byte* _events;

    internal KqueuePoller()
    {
        KqueueLibrary.EnsureLoaded();
        _kqueue = KqueueLibrary.kqueue();
        if (_kqueue < 0)
        {
            throw Errno.ToException(Errno.Last, "No kqueue could be created.");
        }

        // A child of fork(2) does not inherit the kqueue, but a program that replaces this one would.
        if (Libc.fcntl(_kqueue, Platform.F_SETFD, Platform.FD_CLOEXEC) < 0)
        {
            var errno = Errno.Last;
            _ = Libc.close(_kqueue);
            throw Errno.ToException(errno, "The kqueue could not be made close-on-exec.");
        }

        // With EV_CLEAR the delivery resets the event. Any number of triggers before that are one event.
        var changes = stackalloc byte[KernelEvent.MaxSize];
        Write(changes, 0, 0, EVFILT_USER, Darwin.EV_ADD | Darwin.EV_CLEAR, WakeToken);
        var result = Change(changes, 1);
        if (result != 0)
        {
            _ = Libc.close(_kqueue);
            throw Errno.ToException(result, "The wake-up could not be registered with the kqueue.");
        }

        _events = (byte*)NativeMemory.AllocZeroed(MaxEvents, (nuint)KernelEvent.Size);
    }

    internal override int RegisterStream(int descriptor, ulong token)
    {
        var changes = stackalloc byte[2 * KernelEvent.MaxSize];
        Write(changes, 0, descriptor, Darwin.EVFILT_READ, Darwin.EV_ADD | Darwin.EV_CLEAR, token);
        Write(changes, 1, descriptor, Darwin.EVFILT_WRITE, Darwin.EV_ADD | Darwin.EV_CLEAR, token);
        var result = Change(changes, 2);
        if (result != 0)
        {
            // The kernel may have accepted one of the two.
            Deregister(descriptor);
        }

        return result;
    }

    internal override int RegisterListener(int descriptor, ulong token)
    {
        var changes = stackalloc byte[KernelEvent.MaxSize];
        Write(changes, 0, descriptor, Darwin.EVFILT_READ, Darwin.EV_ADD, token);
        return Change(changes, 1);
    }

    internal override void Deregister(int descriptor)
    {
        // A listener has no filter for writing, so the second change fails with ENOENT.
        var changes = stackalloc byte[2 * KernelEvent.MaxSize];
        Write(changes, 0, descriptor, Darwin.EVFILT_READ, Darwin.EV_DELETE, 0);
        Write(changes, 1, descriptor, Darwin.EVFILT_WRITE, Darwin.EV_DELETE, 0);
        var result = Change(changes, 2);

        // The owner of an inherited descriptor may have closed it, and its number may be in use for another file.
        Debug.Assert(result is 0 or Errno.EBADF or Errno.ENOENT, "Only registered descriptors are deregistered.");
    }

    private static void Write(byte* changes, int index, int descriptor, short filter, int flags, ulong token) =>
        *(KernelEvent*)(changes + (index * KernelEvent.Size)) = new KernelEvent
        {
            Identifier = (nuint)(nint)descriptor,
            Filter = filter,

            // The kernel answers each change, and returns no events with the answers.
            Flags = (ushort)(flags | Darwin.EV_RECEIPT),
            UserData = token,
        };

    /// <summary>Makes changes in one call. The answers overwrite the changes.</summary>
    /// <returns>0, or the error number of the first that was refused.</returns>
    private int Change(byte* changes, int count)
    {
        TimeSpec zero = default;
        var answers = KqueueLibrary.kevent(_kqueue, changes, count, changes, count, &zero);
        if (answers < 0)
        {
            return Errno.Last;
        }

        for (var i = 0; i < answers; i++)
        {
            var answer = (KernelEvent*)(changes + (i * KernelEvent.Size));
            if ((answer->Flags & Darwin.EV_ERROR) != 0 && answer->Data != 0)
            {
                return Errno.FromSystem((int)answer->Data);
            }
        }

        return 0;
    }

    internal override int Wait(int timeoutMilliseconds)
    {
        var timeout = TimeSpec.FromMilliseconds(timeoutMilliseconds);
        var count = KqueueLibrary.kevent(_kqueue, null, 0, _events, MaxEvents, timeoutMilliseconds < 0 ? null : &timeout);
        return count >= 0 ? WaitSucceeded(count) : WaitFailed(Errno.Last, nameof(KqueueLibrary.kevent));
    }

    internal override (ulong Token, ReadyEvents Events) GetEvent(int index)
    {
        Debug.Assert((uint)index < MaxEvents);
        var kernelEvent = (KernelEvent*)(_events + (index * KernelEvent.Size));
        return (kernelEvent->UserData, Translate(kernelEvent));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ReadyEvents Translate(KernelEvent* kernelEvent)
    {
        var ready = kernelEvent->Filter == Darwin.EVFILT_READ ? ReadyEvents.Readable
            : kernelEvent->Filter == Darwin.EVFILT_WRITE ? ReadyEvents.Writable
            : ReadyEvents.None;
        var flags = kernelEvent->Flags & (Darwin.EV_EOF | Darwin.EV_OOBAND | Darwin.EV_ERROR);
        if (flags == 0)
        {
            return ready;
        }

        if ((flags & Darwin.EV_EOF) != 0)
        {
            // If the socket ended with an error, the filter's flags have it.
            ready |= ready == ReadyEvents.Readable ? ReadyEvents.PeerClosed : ReadyEvents.HangUp;
            ready |= kernelEvent->FilterFlags != 0 ? ReadyEvents.Error : 0;
        }

        ready |= (flags & Darwin.EV_OOBAND) != 0 ? ReadyEvents.Urgent : 0;
        ready |= (flags & Darwin.EV_ERROR) != 0 ? ReadyEvents.Error : 0;
        return ready;
    }

    internal override void Wake()
    {
        // The lock keeps a delayed waker from triggering another file that has the descriptor's number after Dispose.
        lock (_wakeLock)
        {
            if (_events is not null)
            {
                Trigger();
            }
        }
    }

    private void Trigger()
    {
        var change = stackalloc byte[KernelEvent.MaxSize];
        *(KernelEvent*)change = new KernelEvent { Filter = EVFILT_USER, FilterFlags = Darwin.NOTE_TRIGGER };
        var failures = 0;
        while (KqueueLibrary.kevent(_kqueue, change, 1, null, 0, null) < 0)
        {
            var errno = Errno.Last;
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
            _ = Libc.close(_kqueue);
        }
    }
}
