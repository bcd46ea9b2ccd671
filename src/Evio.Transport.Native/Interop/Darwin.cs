namespace Evio.Transport.Native.Interop;

/// <summary>
/// Darwin's values (macOS, on arm64 and x86-64): sys/socket.h, netinet/tcp.h, netinet6/in6.h, sys/fcntl.h, sys/event.h. A value that
/// <see cref="FreeBsd"/> does not have is also FreeBSD's.
/// </summary>
internal static class Darwin
{
    // sys/socket.h
    internal const int AF_INET6 = 30;
    internal const int SOL_SOCKET = 0xFFFF;
    internal const int SO_ACCEPTCONN = 0x2;
    internal const int SO_REUSEADDR = 0x4;
    internal const int SO_KEEPALIVE = 0x8;
    internal const int SO_LINGER = 0x80;
    internal const int SO_REUSEPORT = 0x200;
    internal const int SO_SNDBUF = 0x1001;
    internal const int SO_RCVBUF = 0x1002;
    internal const int SO_ERROR = 0x1007;
    internal const int SO_TYPE = 0x1008;
    internal const int SO_NOSIGPIPE = 0x1022;

    // netinet/in.h
    internal const int IP_PKTINFO = 26;
    internal const int IP_RECVPKTINFO = 26;

    // netinet/tcp.h, netinet6/in6.h (__APPLE_USE_RFC_3542)
    internal const int TCP_KEEPALIVE = 0x10;
    internal const int TCP_KEEPINTVL = 0x101;
    internal const int TCP_KEEPCNT = 0x102;
    internal const int IPV6_V6ONLY = 27;
    internal const int IPV6_PKTINFO = 46;
    internal const int IPV6_RECVPKTINFO = 61;

    // sys/fcntl.h
    internal const int F_DUPFD_CLOEXEC = 67;
    internal const int O_NONBLOCK = 0x4;
    internal const int O_CLOEXEC = 0x100_0000;
    internal const int AT_FDCWD = -2;
    internal const int AT_SYMLINK_NOFOLLOW = 0x20;

    // time.h
    internal const int CLOCK_THREAD_CPUTIME_ID = 16;

    // sys/event.h
    internal const short EVFILT_READ = -1;
    internal const short EVFILT_WRITE = -2;
    internal const short EVFILT_USER = -10;
    internal const ushort EV_ADD = 0x1;
    internal const ushort EV_DELETE = 0x2;
    internal const ushort EV_CLEAR = 0x20;
    internal const ushort EV_RECEIPT = 0x40;
    internal const ushort EV_OOBAND = 0x2000;
    internal const ushort EV_ERROR = 0x4000;
    internal const ushort EV_EOF = 0x8000;
    internal const uint NOTE_TRIGGER = 0x0100_0000;
}

/// <summary>FreeBSD's values (12 and later), where they are not <see cref="Darwin"/>'s.</summary>
internal static class FreeBsd
{
    internal const int AF_INET6 = 28;
    internal const int SOCK_CLOEXEC = 0x1000_0000;
    internal const int SOCK_NONBLOCK = 0x2000_0000;
    internal const int MSG_NOSIGNAL = 0x20000;
    internal const int O_CLOEXEC = 0x10_0000;
    internal const int TCP_KEEPIDLE = 256;
    internal const int TCP_KEEPINTVL = 512;
    internal const int TCP_KEEPCNT = 1024;
    internal const int IP_RECVDSTADDR = 7;
    internal const int IP_SENDSRCADDR = 7;
    internal const int IPV6_RECVPKTINFO = 36;
    internal const int IPV6_PKTINFO = 46;
    internal const int F_DUPFD_CLOEXEC = 17;
    internal const int AT_FDCWD = -100;
    internal const int AT_SYMLINK_NOFOLLOW = 0x200;
    internal const int CLOCK_THREAD_CPUTIME_ID = 14;
    internal const short EVFILT_USER = -11;
}
