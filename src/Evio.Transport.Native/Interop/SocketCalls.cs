using System.Text;

namespace Evio.Transport.Native.Interop;

/// <summary>
/// What takes different calls on different systems. The names with "Plainly" use nothing but what every system has; Linux has more in one call.
/// </summary>
internal static unsafe class SocketCalls
{
    /// <summary>Makes a non-blocking socket that child processes do not inherit (socket(2)).</summary>
    /// <returns>The descriptor, or below zero.</returns>
    internal static int Create(int family, int type) => Platform.HasSocketFlags
        ? Libc.socket(family, type | Platform.SOCK_NONBLOCK | Platform.SOCK_CLOEXEC, 0)
        : SetUp(Libc.socket(family, type, 0));

    /// <summary>Accepts a connection, non-blocking and not inherited (accept4(2)).</summary>
    /// <returns>The descriptor, or below zero.</returns>
    internal static int Accept(int descriptor, byte* address, uint* length) => Platform.HasSocketFlags
        ? Libc.accept4(descriptor, address, length, Platform.SOCK_NONBLOCK | Platform.SOCK_CLOEXEC)
        : AcceptPlainly(descriptor, address, length);

    internal static int AcceptPlainly(int descriptor, byte* address, uint* length) => SetUp(Libc.accept(descriptor, address, length));

    /// <summary>What the flags of socket(2) and accept4(2) would do. Between the calls a child process may be started that inherits the socket.</summary>
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

    /// <summary>Has a send to a connection that is gone fail without a signal, where <see cref="Platform.MSG_NOSIGNAL"/> cannot.</summary>
    internal static void SuppressSignal(int descriptor)
    {
        if (Platform.IsDarwin)
        {
            // It fails only on a connection that has gone already (EINVAL); and the runtime ignores the signal for the whole process.
            var on = 1;
            _ = Libc.setsockopt(descriptor, Platform.SOL_SOCKET, Darwin.SO_NOSIGPIPE, &on, sizeof(int));
        }
    }

    /// <summary>Whether a socket is known to listen. Darwin does not tell (getsockopt(2) knows no <c>SO_ACCEPTCONN</c>); to listen twice does no harm.</summary>
    internal static bool IsListening(int descriptor)
    {
        int value;
        uint length = sizeof(int);
        return Libc.getsockopt(descriptor, Platform.SOL_SOCKET, Platform.SO_ACCEPTCONN, &value, &length) == 0 && value != 0;
    }

    /// <summary>
    /// Whether a connection is in the state "closed" (tcp(7), TCP_INFO): after a reset, and after both sides' FIN if this side's came first or both crossed.
    /// False for Unix-domain sockets, and elsewhere than on Linux.
    /// </summary>
    internal static bool IsClosed(int descriptor)
    {
        byte state = 0;
        uint length = 1;
        return Platform.IsLinux
            && Libc.getsockopt(descriptor, Platform.IPPROTO_TCP, Linux.TCP_INFO, &state, &length) == 0
            && state == Linux.TCP_CLOSE;
    }

    /// <summary>Ends a connection at once, so that a TCP peer gets RST; elsewhere than on Linux it leaves with close(2).</summary>
    internal static void Reset(int descriptor)
    {
        if (Platform.IsLinux)
        {
            // Connecting a TCP socket to no address dissolves its connection (connect(2)), and a connection that has not ended yet is then reset.
            // It works at once, whoever else is using the descriptor, which a close with a zero linger time would have to wait for.
            var unspecified = stackalloc byte[SizeOfUnspecified];
            new Span<byte>(unspecified, SizeOfUnspecified).Clear();
            if (Libc.connect(descriptor, unspecified, SizeOfUnspecified) == 0)
            {
                return;
            }

            // Unix-domain sockets cannot do it. Their peer sees the end, or a reset if bytes of it are unread (unix(7)).
            _ = Libc.shutdown(descriptor, Platform.SHUT_RDWR);
            return;
        }

        ResetPlainly(descriptor);
    }

    private const int SizeOfUnspecified = 28;

    /// <summary>Has close(2) reset the connection (<c>struct linger { int l_onoff; int l_linger; }</c>), and wakes who waits for input.</summary>
    internal static void ResetPlainly(int descriptor)
    {
        var linger = stackalloc int[2] { 1, 0 };
        _ = Libc.setsockopt(descriptor, Platform.SOL_SOCKET, Platform.SO_LINGER, linger, 2 * sizeof(int));

        // No FIN: it would go before the RST, and tell of an end that was none.
        _ = Libc.shutdown(descriptor, Platform.SHUT_RD);
    }

    /// <summary>Receives as many messages as wait, up to a number (recvmmsg(2)).</summary>
    /// <returns>Their number, or below zero if the first could not be received.</returns>
    internal static int ReceiveMessages(int descriptor, MessageSlot* messages, int count) => Platform.IsLinux
        ? Libc.recvmmsg(descriptor, messages, (uint)count, 0, null)
        : ReceiveMessagesPlainly(descriptor, messages, count);

    internal static int ReceiveMessagesPlainly(int descriptor, MessageSlot* messages, int count)
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
        : SendMessagesPlainly(descriptor, messages, count);

    internal static int SendMessagesPlainly(int descriptor, MessageSlot* messages, int count)
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
    /// Whether connecting to a file shows if a server lives there: yes if it is a socket. On Linux any other file refuses like a socket whose server is
    /// gone; Darwin and FreeBSD name the difference (ENOTSOCK, connect(2)). False also where these calls do not exist.
    /// </summary>
    internal static bool CanProbe(string file) =>
        Platform.IsLinux ? (ModeOf(file) & Linux.S_IFMT) == Linux.S_IFSOCK : Platform.IsDarwin || Platform.IsFreeBsd;

    /// <summary>Kind and permissions of a file (inode(7)); 0 if there is none, and elsewhere than on Linux.</summary>
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
    /// What tells a file from another one that takes its place: device and inode (inode(7)). Elsewhere than on Linux the time at which it was last written, which
    /// for a socket is when it was made.
    /// </summary>
    /// <returns><see langword="null"/> if there is no such file, or if that is not known.</returns>
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
    /// <returns>The descriptor, or below zero; the latter always where these calls do not exist.</returns>
    internal static int OpenDirectory(string directory)
    {
        if (!Platform.HasSharedPorts)
        {
            return -1;
        }

        // SAFETY: the path is fixed for the duration of the call. It does not wait, not even for the other end of a FIFO.
        fixed (byte* path = Encoding.UTF8.GetBytes(directory + '\0'))
        {
            return Libc.open(path, Platform.O_RDONLY | Platform.O_CLOEXEC | Platform.O_NONBLOCK);
        }
    }

    /// <summary>Takes the lock of an open file, which close(2) gives back, if nobody else has it (flock(2)).</summary>
    /// <returns>0, or the error: EAGAIN if somebody has it.</returns>
    internal static int TryLock(int descriptor) => Libc.flock(descriptor, Platform.LOCK_EX | Platform.LOCK_NB) < 0 ? Errno.Last : 0;

    /// <summary>
    /// Limits the mode of the file that bind(2) will make, where a socket has one (fchmod(2)). Elsewhere the file has a wider one for the moment until
    /// <see cref="SetMode"/>, but does not listen yet.
    /// </summary>
    internal static bool LimitMode(int descriptor, UnixFileMode mode) => !Platform.IsLinux || Libc.fchmod(descriptor, (uint)mode) == 0;

    /// <summary>Sets a file's mode. Not through a symbolic link, which somebody else may have put in the file's place.</summary>
    internal static bool SetMode(string file, UnixFileMode mode)
    {
        fixed (byte* path = Encoding.UTF8.GetBytes(file + '\0'))
        {
            return Libc.fchmodat(Platform.AT_FDCWD, path, (uint)mode, Platform.AT_SYMLINK_NOFOLLOW) == 0;
        }
    }
}
