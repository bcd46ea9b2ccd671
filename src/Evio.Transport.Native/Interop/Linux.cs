namespace Evio.Transport.Native.Interop;

/// <summary>
/// Linux's values of the constants that <see cref="Libc"/>'s calls take. <see cref="Platform"/> has those that all systems share. The
/// values are the same on x86-64 and arm64.
/// </summary>
internal static class Linux
{
    // socket(2), accept4(2)
    internal const int AF_INET6 = 10;
    internal const int SOCK_NONBLOCK = 0x800;
    internal const int SOCK_CLOEXEC = 0x80000;

    // setsockopt(2), socket(7), tcp(7), ipv6(7)
    internal const int SOL_SOCKET = 1;
    internal const int SO_REUSEADDR = 2;
    internal const int SO_TYPE = 3;
    internal const int SO_ERROR = 4;
    internal const int SO_SNDBUF = 7;
    internal const int SO_RCVBUF = 8;
    internal const int SO_KEEPALIVE = 9;
    internal const int SO_LINGER = 13;
    internal const int SO_REUSEPORT = 15;
    internal const int SO_ACCEPTCONN = 30;
    internal const int TCP_INFO = 11;
    internal const int TCP_CLOSE = 7;
    internal const int TCP_KEEPIDLE = 4;
    internal const int TCP_KEEPINTVL = 5;
    internal const int TCP_KEEPCNT = 6;
    internal const int IPV6_V6ONLY = 26;
    internal const int IPV6_RECVPKTINFO = 49;
    internal const int IPV6_PKTINFO = 50;

    // ip(7)
    internal const int IP_PKTINFO = 8;

    // send(2)
    internal const int MSG_NOSIGNAL = 0x4000;

    // fcntl(2)
    internal const int F_DUPFD_CLOEXEC = 1030;
    internal const int O_NONBLOCK = 0x800;

    // open(2)
    internal const int O_CLOEXEC = 0x80000;

    // clock_gettime(2)
    internal const int CLOCK_THREAD_CPUTIME_ID = 3;

    // eventfd(2)
    internal const int EFD_CLOEXEC = 0x80000;
    internal const int EFD_NONBLOCK = 0x800;

    // statx(2): the mode is at a fixed place on every architecture, which stat(2) does not promise.
    internal const int AT_FDCWD = -100;
    internal const int AT_SYMLINK_NOFOLLOW = 0x100;
    internal const uint STATX_TYPE = 1;
    internal const uint STATX_MODE = 2;
    internal const uint STATX_INO = 0x100;
    internal const int SizeOfStatx = 256;
    internal const int OffsetOfStatxMode = 28;
    internal const int OffsetOfStatxInode = 32;
    internal const int OffsetOfStatxDevice = 136;
    internal const int S_IFMT = 0xF000;
    internal const int S_IFSOCK = 0xC000;
}
