using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>
/// The only place that asks which system this is. Values that all systems share are constants. The others are chosen once, from
/// <see cref="Linux"/>, <see cref="Darwin"/> and <see cref="FreeBsd"/>, into read-only fields, which the JIT takes for constants.
/// </summary>
internal static class Platform
{
    /// <summary>Linux, including Android's.</summary>
    internal static readonly bool IsLinux = OperatingSystem.IsLinux() || OperatingSystem.IsAndroid();

    /// <summary>macOS and the other systems on its kernel.</summary>
    internal static readonly bool IsDarwin =
        OperatingSystem.IsMacOS() || OperatingSystem.IsMacCatalyst() || OperatingSystem.IsIOS() || OperatingSystem.IsTvOS();

    internal static readonly bool IsFreeBsd = OperatingSystem.IsFreeBSD();

    /// <summary>Whether an event loop can run here: layouts and constants are known, and there is a poller.</summary>
    internal static readonly bool HasPoller =
        Environment.Is64BitProcess && (OperatingSystem.IsLinux() || OperatingSystem.IsMacOS() || OperatingSystem.IsFreeBSD());

    /// <summary>Whether sockets can share a port (<see cref="SO_REUSEPORT"/>).</summary>
    internal static readonly bool HasSharedPorts = IsLinux || IsDarwin || IsFreeBsd;

    /// <summary>Whether the kernel spreads connections and datagrams over the sockets that share a port (<c>SO_REUSEPORT</c>).</summary>
    /// <remarks>
    /// Darwin gives all of them to one socket. FreeBSD needs <c>SO_REUSEPORT_LB</c>, set before bind(2). There the option would hide that
    /// the port is taken.
    /// </remarks>
    internal static readonly bool SpreadsSharedPorts = IsLinux;

    /// <summary>Whether socket(2) takes flags, and accept4(2) is there.</summary>
    internal static readonly bool HasSocketFlags = IsLinux || IsFreeBsd;

    /// <summary>Whether a <c>sockaddr</c> begins with its length, which takes a byte from the family.</summary>
    internal static readonly bool HasAddressLength = !IsLinux;

    /// <summary>Whether the variadic arguments of a C function are passed on the stack, unlike its other arguments.</summary>
    internal static readonly bool PassesVariadicOnStack = IsDarwin && RuntimeInformation.ProcessArchitecture == Architecture.Arm64;

    // socket(2)
    internal const int AF_UNIX = 1;
    internal const int AF_INET = 2;
    internal const int SOCK_STREAM = 1;
    internal const int SOCK_DGRAM = 2;
    internal static readonly int AF_INET6 = Choose(Linux.AF_INET6, Darwin.AF_INET6, FreeBsd.AF_INET6);
    internal static readonly int SOCK_NONBLOCK = Choose(Linux.SOCK_NONBLOCK, 0, FreeBsd.SOCK_NONBLOCK);
    internal static readonly int SOCK_CLOEXEC = Choose(Linux.SOCK_CLOEXEC, 0, FreeBsd.SOCK_CLOEXEC);

    // setsockopt(2)
    internal const int IPPROTO_IP = 0;
    internal const int IPPROTO_TCP = 6;
    internal const int TCP_NODELAY = 1;
    internal const int IPPROTO_IPV6 = 41;
    internal static readonly int SOL_SOCKET = Choose(Linux.SOL_SOCKET, Darwin.SOL_SOCKET);
    internal static readonly int SO_REUSEADDR = Choose(Linux.SO_REUSEADDR, Darwin.SO_REUSEADDR);
    internal static readonly int SO_TYPE = Choose(Linux.SO_TYPE, Darwin.SO_TYPE);
    internal static readonly int SO_ERROR = Choose(Linux.SO_ERROR, Darwin.SO_ERROR);
    internal static readonly int SO_SNDBUF = Choose(Linux.SO_SNDBUF, Darwin.SO_SNDBUF);
    internal static readonly int SO_RCVBUF = Choose(Linux.SO_RCVBUF, Darwin.SO_RCVBUF);
    internal static readonly int SO_KEEPALIVE = Choose(Linux.SO_KEEPALIVE, Darwin.SO_KEEPALIVE);
    internal static readonly int SO_REUSEPORT = Choose(Linux.SO_REUSEPORT, Darwin.SO_REUSEPORT);
    internal static readonly int SO_ACCEPTCONN = Choose(Linux.SO_ACCEPTCONN, Darwin.SO_ACCEPTCONN);
    internal static readonly int SO_LINGER = Choose(Linux.SO_LINGER, Darwin.SO_LINGER);
    internal static readonly int TCP_KEEPIDLE = Choose(Linux.TCP_KEEPIDLE, Darwin.TCP_KEEPALIVE, FreeBsd.TCP_KEEPIDLE);
    internal static readonly int TCP_KEEPINTVL = Choose(Linux.TCP_KEEPINTVL, Darwin.TCP_KEEPINTVL, FreeBsd.TCP_KEEPINTVL);
    internal static readonly int TCP_KEEPCNT = Choose(Linux.TCP_KEEPCNT, Darwin.TCP_KEEPCNT, FreeBsd.TCP_KEEPCNT);
    internal static readonly int IPV6_V6ONLY = Choose(Linux.IPV6_V6ONLY, Darwin.IPV6_V6ONLY);

    // send(2), shutdown(2)
    internal const int SHUT_RD = 0;
    internal const int SHUT_WR = 1;
    internal const int SHUT_RDWR = 2;

    /// <summary>0 on Darwin, whose sockets have <see cref="Darwin.SO_NOSIGPIPE"/> instead.</summary>
    internal static readonly int MSG_NOSIGNAL = Choose(Linux.MSG_NOSIGNAL, 0, FreeBsd.MSG_NOSIGNAL);

    // fcntl(2)
    internal const int F_SETFD = 2;
    internal const int F_GETFL = 3;
    internal const int F_SETFL = 4;
    internal const int FD_CLOEXEC = 1;
    internal static readonly int F_DUPFD_CLOEXEC = Choose(Linux.F_DUPFD_CLOEXEC, Darwin.F_DUPFD_CLOEXEC, FreeBsd.F_DUPFD_CLOEXEC);
    internal static readonly int O_NONBLOCK = Choose(Linux.O_NONBLOCK, Darwin.O_NONBLOCK);

    // open(2), flock(2)
    internal const int O_RDONLY = 0;
    internal const int LOCK_EX = 2;
    internal const int LOCK_NB = 4;
    internal static readonly int O_CLOEXEC = Choose(Linux.O_CLOEXEC, Darwin.O_CLOEXEC, FreeBsd.O_CLOEXEC);

    // fchmodat(2)
    internal const int PermissionBits = 0xFFF;
    internal static readonly int AT_FDCWD = Choose(Linux.AT_FDCWD, Darwin.AT_FDCWD, FreeBsd.AT_FDCWD);
    internal static readonly int AT_SYMLINK_NOFOLLOW = Choose(Linux.AT_SYMLINK_NOFOLLOW, Darwin.AT_SYMLINK_NOFOLLOW, FreeBsd.AT_SYMLINK_NOFOLLOW);

    // clock_gettime(2)
    internal static readonly int CLOCK_THREAD_CPUTIME_ID =
        Choose(Linux.CLOCK_THREAD_CPUTIME_ID, Darwin.CLOCK_THREAD_CPUTIME_ID, FreeBsd.CLOCK_THREAD_CPUTIME_ID);

    /// <summary><c>sizeof(struct sockaddr_storage)</c>: room for an address of any family.</summary>
    internal const int SizeOfSockAddrStorage = 128;

    /// <summary>The family of a <c>sockaddr</c> of at least two bytes.</summary>
    internal static int FamilyOf(ReadOnlySpan<byte> address) => FamilyOf(address, HasAddressLength);

    internal static int FamilyOf(ReadOnlySpan<byte> address, bool hasLength) =>
        hasLength ? address[1] : Unsafe.ReadUnaligned<ushort>(in address[0]);

    private static int Choose(int linux, int bsd) => IsLinux ? linux : bsd;

    private static int Choose(int linux, int darwin, int freeBsd) => IsLinux ? linux : IsFreeBsd ? freeBsd : darwin;
}
