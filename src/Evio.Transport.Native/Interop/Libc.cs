using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>
/// The C library's entry points, with blittable signatures and without marshalling. A result below zero means that <see cref="Errno.Last"/>
/// has the reason, which the caller reads on the very next line. All file descriptors that pass through here are non-blocking, so only
/// <see cref="epoll_wait"/> blocks its thread. Calls that only some systems have are made by <see cref="SocketCalls"/> or by the systems'
/// pollers.
/// </summary>
internal static unsafe partial class Libc
{
    private const string Library = "libc";

    [LibraryImport(Library)]
    internal static partial int epoll_create1(int flags);

    [LibraryImport(Library)]
    internal static partial int epoll_ctl(int epfd, int op, int fd, byte* epollEvent);

    [LibraryImport(Library)]
    internal static partial int epoll_wait(int epfd, byte* events, int maxEvents, int timeoutMilliseconds);

    [LibraryImport(Library)]
    internal static partial int eventfd(uint initialValue, int flags);

    [LibraryImport(Library)]
    internal static partial nint read(int fd, void* buffer, nuint count);

    [LibraryImport(Library)]
    internal static partial nint write(int fd, void* buffer, nuint count);

    [LibraryImport(Library)]
    internal static partial int close(int fd);

    [LibraryImport(Library)]
    internal static partial int socket(int domain, int type, int protocol);

    [LibraryImport(Library)]
    internal static partial int bind(int fd, byte* address, uint length);

    [LibraryImport(Library)]
    internal static partial int listen(int fd, int backlog);

    [LibraryImport(Library)]
    internal static partial int connect(int fd, byte* address, uint length);

    [LibraryImport(Library)]
    internal static partial int accept(int fd, byte* address, uint* length);

    [LibraryImport(Library)]
    internal static partial int accept4(int fd, byte* address, uint* length, int flags);

    [LibraryImport(Library)]
    internal static partial int getsockname(int fd, byte* address, uint* length);

    [LibraryImport(Library)]
    internal static partial int getsockopt(int fd, int level, int option, void* value, uint* length);

    [LibraryImport(Library)]
    internal static partial int setsockopt(int fd, int level, int option, void* value, uint length);

    internal static int fcntl(int fd, int command, nint argument) => Platform.PassesVariadicOnStack
        ? fcntl_stack(fd, command, 0, 0, 0, 0, 0, 0, argument)
        : fcntl_registers(fd, command, argument);

    [LibraryImport(Library, EntryPoint = "fcntl")]
    private static partial int fcntl_registers(int fd, int command, nint argument);

    /// <summary>
    /// Fills the eight registers for arguments, so that the last argument is on the stack, where Apple's arm64 convention has it.
    /// </summary>
    [LibraryImport(Library, EntryPoint = "fcntl")]
    private static partial int fcntl_stack(int fd, int command, nint x2, nint x3, nint x4, nint x5, nint x6, nint x7, nint argument);

    [LibraryImport(Library)]
    internal static partial nint recv(int fd, byte* buffer, nuint length, int flags);

    [LibraryImport(Library)]
    internal static partial nint send(int fd, byte* buffer, nuint length, int flags);

    [LibraryImport(Library)]
    internal static partial nint recvmsg(int fd, MessageHeader* message, int flags);

    [LibraryImport(Library)]
    internal static partial nint sendmsg(int fd, MessageHeader* message, int flags);

    [LibraryImport(Library)]
    internal static partial int recvmmsg(int fd, MessageSlot* messages, uint count, int flags, void* timeout);

    [LibraryImport(Library)]
    internal static partial int sendmmsg(int fd, MessageSlot* messages, uint count, int flags);

    [LibraryImport(Library)]
    internal static partial int shutdown(int fd, int how);

    /// <summary>open(2) without a mode, which follows the flags only where a file may be created.</summary>
    [LibraryImport(Library)]
    internal static partial int open(byte* path, int flags);

    [LibraryImport(Library)]
    internal static partial int flock(int fd, int operation);

    [LibraryImport(Library)]
    internal static partial int statx(int directory, byte* path, int flags, uint mask, byte* result);

    [LibraryImport(Library)]
    internal static partial int fchmod(int fd, uint mode);

    [LibraryImport(Library)]
    internal static partial int fchmodat(int directory, byte* path, uint mode, int flags);

    [LibraryImport(Library)]
    internal static partial int sched_setaffinity(int thread, nuint size, ulong* mask);
}

/// <summary><c>struct iovec</c>: one piece of a scattered transfer.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct IoVector
{
    internal byte* Base;
    internal nuint Length;
}

/// <summary><c>struct msghdr</c> as Linux's 64-bit C libraries lay it out (recvmsg(2)), which serves Darwin and FreeBSD as well.</summary>
/// <remarks>
/// Darwin and FreeBSD have an <c>int</c> for <see cref="VectorCount"/>, and a <c>socklen_t</c> with <c>msg_flags</c> behind it for
/// <see cref="ControlLength"/>. These machines are little-endian, so the systems read the low half of each field. The flags land in the
/// high half of <see cref="ControlLength"/>, and no code here reads them.
/// </remarks>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct MessageHeader
{
    internal byte* Name;
    internal uint NameLength;
    internal IoVector* Vectors;
    internal nuint VectorCount;
    internal byte* Control;
    internal nuint ControlLength;
    internal int Flags;
}

/// <summary>One of the messages of a batch: <c>struct mmsghdr</c> of Linux (recvmmsg(2), sendmmsg(2)).</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct MessageSlot
{
    internal MessageHeader Header;

    /// <summary>How many bytes of the message were transferred.</summary>
    internal uint Length;
}
