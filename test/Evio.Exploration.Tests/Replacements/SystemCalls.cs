using System.Runtime.InteropServices;
using Evio.Transport.Native.Interop;
using Exploration;
using Calls = Evio.Transport.Native.Interop.SocketCalls;
using Kernel = Evio.Transport.Native.Interop.Libc;

// The namespace around all that makes system calls (but Interop itself, which has the real ones): what is here has precedence.
namespace Evio.Transport.Native;

/// <summary>
/// Each system call is a step, and made while nobody else runs. One on a descriptor that is not open ends the execution: its number may be somebody
/// else's by then.
/// </summary>
internal static unsafe partial class Libc
{
    private const short POLLIN = 1;

    internal static int epoll_create1(int flags)
    {
        Step("epoll_create1");
        return Opened(Kernel.epoll_create1(flags));
    }

    internal static int epoll_ctl(int epfd, int op, int fd, byte* epollEvent)
    {
        Step("epoll_ctl", epfd);
        return Kernel.epoll_ctl(epfd, op, fd, epollEvent);
    }

    /// <summary>Whoever waits for events can go on when the kernel has some, and at the latest when his time is up.</summary>
    internal static int epoll_wait(int epfd, byte* events, int maxEvents, int timeoutMilliseconds)
    {
        if (timeoutMilliseconds == 0)
        {
            Step("epoll_wait without waiting", epfd);
        }
        else
        {
            var execution = Execution.Current;
            _ = execution.Block(
                "epoll_wait", () => IsReadable(epfd), execution.After(TimeSpan.FromMilliseconds(timeoutMilliseconds)));
            Check("epoll_wait", epfd);
        }

        return Kernel.epoll_wait(epfd, events, maxEvents, 0);
    }

    internal static int eventfd(uint initialValue, int flags)
    {
        Step("eventfd");
        return Opened(Kernel.eventfd(initialValue, flags));
    }

    internal static nint read(int fd, void* buffer, nuint count)
    {
        Step("read", fd);
        return Kernel.read(fd, buffer, count);
    }

    internal static nint write(int fd, void* buffer, nuint count)
    {
        Step("write", fd);
        return Kernel.write(fd, buffer, count);
    }

    internal static int close(int fd)
    {
        Step("close", fd);
        return Execution.Current.Descriptors.Close(fd);
    }

    internal static int bind(int fd, byte* address, uint length)
    {
        Step("bind", fd);
        return Kernel.bind(fd, address, length);
    }

    internal static int listen(int fd, int backlog)
    {
        Step("listen", fd);
        return Kernel.listen(fd, backlog);
    }

    internal static int connect(int fd, byte* address, uint length)
    {
        Step("connect", fd);
        return Kernel.connect(fd, address, length);
    }

    internal static int getsockname(int fd, byte* address, uint* length)
    {
        Step("getsockname", fd);
        return Kernel.getsockname(fd, address, length);
    }

    internal static int getsockopt(int fd, int level, int option, void* value, uint* length)
    {
        Step("getsockopt", fd);
        return Kernel.getsockopt(fd, level, option, value, length);
    }

    internal static int setsockopt(int fd, int level, int option, void* value, uint length)
    {
        Step("setsockopt", fd);
        return Kernel.setsockopt(fd, level, option, value, length);
    }

    internal static int fcntl(int fd, int command, nint argument)
    {
        Step("fcntl", fd);
        return Kernel.fcntl(fd, command, argument);
    }

    internal static nint recv(int fd, byte* buffer, nuint length, int flags)
    {
        Step("recv", fd);
        return Kernel.recv(fd, buffer, length, flags);
    }

    internal static nint send(int fd, byte* buffer, nuint length, int flags)
    {
        Step("send", fd);
        return Kernel.send(fd, buffer, length, flags);
    }

    internal static nint recvmsg(int fd, MessageHeader* message, int flags)
    {
        Step("recvmsg", fd);
        return Kernel.recvmsg(fd, message, flags);
    }

    internal static nint sendmsg(int fd, MessageHeader* message, int flags)
    {
        Step("sendmsg", fd);
        return Kernel.sendmsg(fd, message, flags);
    }

    internal static int shutdown(int fd, int how)
    {
        Step("shutdown", fd);
        return Kernel.shutdown(fd, how);
    }

    internal static void Step(string call) => Execution.Current.Point(call);

    internal static void Step(string call, int descriptor)
    {
        Step(call);
        Check(call, descriptor);
    }

    internal static int Opened(int descriptor)
    {
        if (descriptor >= 0)
        {
            Execution.Current.Descriptors.Add(descriptor);
        }

        return descriptor;
    }

    private static void Check(string call, int descriptor)
    {
        var execution = Execution.Current;
        if (!execution.Descriptors.IsOpen(descriptor))
        {
            execution.Fail($"{Actor.Current.Name} calls {call} for descriptor {descriptor}, which is closed.");
        }
    }

    internal static bool IsReadable(int descriptor)
    {
        var entry = new PollEntry { Descriptor = descriptor, Events = POLLIN };
        return poll(&entry, 1, 0) == 1;
    }

    [LibraryImport("libc")]
    private static partial int poll(PollEntry* entries, nuint count, int timeout);

    /// <summary><c>struct pollfd</c>.</summary>
    private struct PollEntry
    {
        internal int Descriptor;
        internal short Events;
        internal short Returned;
    }
}

/// <summary>The same for what takes other calls on other systems.</summary>
internal static unsafe class SocketCalls
{
    internal static int Create(int family, int type)
    {
        Libc.Step("socket");
        return Libc.Opened(Calls.Create(family, type));
    }

    internal static int Accept(int descriptor, byte* address, uint* length)
    {
        Libc.Step("accept", descriptor);
        return Libc.Opened(Calls.Accept(descriptor, address, length));
    }

    internal static bool IsClosed(int descriptor)
    {
        Libc.Step("getsockopt", descriptor);
        return Calls.IsClosed(descriptor);
    }

    internal static void Reset(int descriptor)
    {
        Libc.Step("reset", descriptor);
        Calls.Reset(descriptor);
    }

    internal static bool SetNonBlocking(int descriptor, bool value)
    {
        Libc.Step("fcntl", descriptor);
        return Calls.SetNonBlocking(descriptor, value);
    }

    internal static bool IsListening(int descriptor)
    {
        Libc.Step("getsockopt", descriptor);
        return Calls.IsListening(descriptor);
    }

    internal static void SuppressSignal(int descriptor) => Calls.SuppressSignal(descriptor);

    internal static bool CanProbe(string file) => Calls.CanProbe(file);

    internal static int ModeOf(string file) => Calls.ModeOf(file);

    internal static (ulong Device, ulong Inode)? IdentityOf(string file) => Calls.IdentityOf(file);

    internal static int OpenDirectory(string directory)
    {
        Libc.Step("open");
        return Libc.Opened(Calls.OpenDirectory(directory));
    }

    internal static int TryLock(int descriptor)
    {
        Libc.Step("flock", descriptor);
        return Calls.TryLock(descriptor);
    }

    internal static bool LimitMode(int descriptor, UnixFileMode mode) => Calls.LimitMode(descriptor, mode);

    internal static bool SetMode(string file, UnixFileMode mode) => Calls.SetMode(file, mode);

    internal static int ReceiveMessages(int descriptor, MessageSlot* messages, int count)
    {
        Libc.Step("recvmmsg", descriptor);
        return Calls.ReceiveMessages(descriptor, messages, count);
    }

    internal static int SendMessages(int descriptor, MessageSlot* messages, int count)
    {
        Libc.Step("sendmmsg", descriptor);
        return Calls.SendMessages(descriptor, messages, count);
    }
}
