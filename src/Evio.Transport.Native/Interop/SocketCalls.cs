using System.Text;

namespace Evio.Transport.Native.Interop;

/// <summary>
/// Operations that take different calls on different systems. Methods with "Plainly" in their names use only calls that every system has.
/// Linux has calls that do more at once.
/// </summary>
internal static unsafe class SocketCalls
{
    /// <summary>Creates a non-blocking socket that child processes do not inherit (socket(2)).</summary>
    /// <returns>The descriptor, or below zero.</returns>
    internal static int Create(int family, int type) => Platform.HasSocketFlags
        ? Libc.socket(family, type | Platform.SOCK_NONBLOCK | Platform.SOCK_CLOEXEC, 0)
        : SetUp(Libc.socket(family, type, 0));

    /// <summary>Accepts a connection, non-blocking and not inherited (accept4(2)).</summary>
    /// <returns>The descriptor, or below zero.</returns>
    internal static int Accept(int descriptor, byte* address, uint* length) => Platform.HasSocketFlags
        ? Libc.accept4(descriptor, address, length, Platform.SOCK_NONBLOCK | Platform.SOCK_CLOEXEC)
        : AcceptPortably(descriptor, address, length);

    internal static int AcceptPortably(int descriptor, byte* address, uint* length) => SetUp(Libc.accept(descriptor, address, length));

    /// <summary>
    /// Does what the flags of socket(2) and accept4(2) would do. A child process that is started between the calls inherits the socket.
    /// </summary>
    private static int SetUp(int descriptor)
    {
        if (descriptor < 0)
        {
            return descriptor;
        }

        if (!SetNonBlocking(descriptor, true) || Libc.fcntl(descriptor, Platform.F_SETFD, Platform.FD_CLOEXEC) < 0)
        {
            _ = Libc.close(descriptor);
            return -1;
        }

        SuppressSignal(descriptor);
        return descriptor;
    }

    internal static bool SetNonBlocking(int descriptor, bool value)
    {
        var flags = Libc.fcntl(descriptor, Platform.F_GETFL, 0);
        return flags >= 0
            && Libc.fcntl(descriptor, Platform.F_SETFL, value ? flags | Platform.O_NONBLOCK : flags & ~Platform.O_NONBLOCK) >= 0;
    }

    /// <summary>
    /// Makes a send to a connection that is gone fail without a signal, where <see cref="Platform.MSG_NOSIGNAL"/> cannot.
    /// </summary>
    internal static void SuppressSignal(int descriptor)
    {
        if (Platform.IsDarwin)
        {
            // This fails only on a connection that is gone already (EINVAL). The runtime ignores the signal for the whole process in any
            // case.
            var on = 1;
            _ = Libc.setsockopt(descriptor, Platform.SOL_SOCKET, Darwin.SO_NOSIGPIPE, &on, sizeof(int));
        }
    }

    /// <summary>
    /// Whether a socket is known to listen. Darwin does not report it (getsockopt(2) has no <c>SO_ACCEPTCONN</c>). To listen twice does no
    /// harm.
    /// </summary>
    internal static bool IsListening(int descriptor)
    {
        int value;
        uint length = sizeof(int);
        return Libc.getsockopt(descriptor, Platform.SOL_SOCKET, Platform.SO_ACCEPTCONN, &value, &length) == 0 && value != 0;
    }

    /// <summary>
    /// Whether a connection is in the state "closed" (tcp(7), TCP_INFO). A reset leads to it. Both sides' FIN do, too, if this side's came
    /// first or both crossed. False for Unix-domain sockets, and on systems other than Linux.
    /// </summary>
    internal static bool IsClosed(int descriptor)
    {
        byte state = 0;
        uint length = 1;
        return Platform.IsLinux
            && Libc.getsockopt(descriptor, Platform.IPPROTO_TCP, Linux.TCP_INFO, &state, &length) == 0
            && state == Linux.TCP_CLOSE;
    }

    /// <summary>Ends a connection at once, so that a TCP peer gets RST. On systems other than Linux the RST leaves with close(2).</summary>
    internal static void Reset(int descriptor)
    {
        if (Platform.IsLinux)
        {
            // Connecting a TCP socket to no address dissolves its connection (connect(2)), and resets one that has not ended yet. That
            // works at once, even while other threads use the descriptor. A close with a zero linger time would have to wait for them.
            var unspecified = stackalloc byte[SizeOfUnspecified];
            new Span<byte>(unspecified, SizeOfUnspecified).Clear();
            if (Libc.connect(descriptor, unspecified, SizeOfUnspecified) == 0)
            {
                return;
            }

            // Unix-domain sockets cannot do that. The peer sees the end, or a reset if bytes that it sent are unread (unix(7)).
            _ = Libc.shutdown(descriptor, Platform.SHUT_RDWR);
            return;
        }

        ResetPortably(descriptor);
    }

    private const int SizeOfUnspecified = 28;

    /// <summary>
    /// Makes close(2) reset the connection (<c>struct linger { int l_onoff; int l_linger; }</c>), and wakes threads that wait for input.
    /// </summary>
    internal static void ResetPortably(int descriptor)
    {
        var linger = stackalloc int[2] { 1, 0 };
        _ = Libc.setsockopt(descriptor, Platform.SOL_SOCKET, Platform.SO_LINGER, linger, 2 * sizeof(int));

        // Only the input is shut down. A FIN would go before the RST, and would look like a regular end.
        _ = Libc.shutdown(descriptor, Platform.SHUT_RD);
    }

    /// <summary>Receives the waiting messages, up to <paramref name="count"/> (recvmmsg(2)).</summary>
    /// <returns>Their number, or below zero if the first could not be received.</returns>
    internal static int ReceiveMessages(int descriptor, MessageSlot* messages, int count) => Platform.IsLinux
        ? Libc.recvmmsg(descriptor, messages, (uint)count, 0, null)
        : ReceiveMessagesPortably(descriptor, messages, count);

    internal static int ReceiveMessagesPortably(int descriptor, MessageSlot* messages, int count)
    {
        for (var i = 0; i < count; i++)
        {
            var length = Libc.recvmsg(descriptor, &messages[i].Header, 0);
            if (length < 0)
            {
                return i > 0 ? i : -1;
            }

            messages[i].Length = (uint)length;
        }

        return count;
    }

    /// <summary>Sends messages, as far as the kernel takes them (sendmmsg(2)).</summary>
    /// <returns>Their number, or below zero if the first could not be sent.</returns>
    internal static int SendMessages(int descriptor, MessageSlot* messages, int count) => Platform.IsLinux
        ? Libc.sendmmsg(descriptor, messages, (uint)count, Platform.MSG_NOSIGNAL)
        : SendMessagesPortably(descriptor, messages, count);

    internal static int SendMessagesPortably(int descriptor, MessageSlot* messages, int count)
    {
        for (var i = 0; i < count; i++)
        {
            var length = Libc.sendmsg(descriptor, &messages[i].Header, Platform.MSG_NOSIGNAL);
            if (length < 0)
            {
                return i > 0 ? i : -1;
            }

            messages[i].Length = (uint)length;
        }

        return count;
    }

    /// <summary>
    /// Whether connecting to a file shows if a server runs there: yes if the file is a socket. On Linux any other file refuses like a
    /// socket whose server has ended. Darwin and FreeBSD report the difference (ENOTSOCK, connect(2)). False on systems without these
    /// calls.
    /// </summary>
    internal static bool CanProbe(string file) =>
        Platform.IsLinux ? (ModeOf(file) & Linux.S_IFMT) == Linux.S_IFSOCK : Platform.IsDarwin || Platform.IsFreeBsd;

    /// <summary>The kind and permissions of a file (inode(7)); 0 if there is none, and on systems other than Linux.</summary>
    internal static int ModeOf(string file)
    {
        if (!Platform.IsLinux)
        {
            return 0;
        }

        var result = stackalloc byte[Linux.SizeOfStatx];
        fixed (byte* path = Encoding.UTF8.GetBytes(file + '\0'))
        {
            return Libc.statx(Linux.AT_FDCWD, path, Linux.AT_SYMLINK_NOFOLLOW, Linux.STATX_TYPE | Linux.STATX_MODE, result) == 0
                ? *(ushort*)(result + Linux.OffsetOfStatxMode)
                : 0;
        }
    }

    /// <summary>
    /// Returns what distinguishes a file from another one that takes its place: device and inode (inode(7)). On systems other than Linux it
    /// is the time of the last write, which for a socket is the time of its creation.
    /// </summary>
    /// <returns><see langword="null"/> if there is no such file, or if the values are not known.</returns>
    internal static (ulong Device, ulong Inode)? IdentityOf(string file)
    {
        if (!Platform.IsLinux)
        {
            return Path.Exists(file) ? (0, (ulong)File.GetLastWriteTimeUtc(file).Ticks) : null;
        }

        var result = stackalloc byte[Linux.SizeOfStatx];

        // SAFETY: the path is fixed for the duration of the call, and the result has the size of the structure, whose fields are aligned.
        fixed (byte* path = Encoding.UTF8.GetBytes(file + '\0'))
        {
            return Libc.statx(Linux.AT_FDCWD, path, Linux.AT_SYMLINK_NOFOLLOW, Linux.STATX_INO, result) == 0
                ? (*(ulong*)(result + Linux.OffsetOfStatxDevice), *(ulong*)(result + Linux.OffsetOfStatxInode))
                : null;
        }
    }

    /// <summary>Opens a directory, to be locked (open(2)).</summary>
    /// <returns>The descriptor, or below zero. On systems without these calls it is always below zero.</returns>
    internal static int OpenDirectory(string directory)
    {
        if (!Platform.HasSharedPorts)
        {
            return -1;
        }

        // SAFETY: the path is fixed for the duration of the call. The call does not wait, not even for the other end of a FIFO.
        fixed (byte* path = Encoding.UTF8.GetBytes(directory + '\0'))
        {
            return Libc.open(path, Platform.O_RDONLY | Platform.O_CLOEXEC | Platform.O_NONBLOCK);
        }
    }

    /// <summary>Takes the lock of an open file, if it is free (flock(2)). close(2) releases it.</summary>
    /// <returns>0, or the error: EAGAIN if the lock is taken.</returns>
    internal static int TryLock(int descriptor) => Libc.flock(descriptor, Platform.LOCK_EX | Platform.LOCK_NB) < 0 ? Errno.Last : 0;

    /// <summary>
    /// Limits the mode of the file that bind(2) will create, where a socket has a mode (fchmod(2)). Elsewhere the file may have a wider
    /// mode until <see cref="SetMode"/>, but the socket does not listen yet.
    /// </summary>
    internal static bool LimitMode(int descriptor, UnixFileMode mode) => !Platform.IsLinux || Libc.fchmod(descriptor, (uint)mode) == 0;

    /// <summary>Sets a file's mode. It does not follow a symbolic link, which another process may have put in the file's place.</summary>
    internal static bool SetMode(string file, UnixFileMode mode)
    {
        fixed (byte* path = Encoding.UTF8.GetBytes(file + '\0'))
        {
            return Libc.fchmodat(Platform.AT_FDCWD, path, (uint)mode, Platform.AT_SYMLINK_NOFOLLOW) == 0;
        }
    }
}
