using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>
/// The error numbers that the reactor distinguishes, with Linux's values (errno(3)). <see cref="FromSystem"/> translates those of other
/// systems, so that all other code uses the same numbers.
/// </summary>
internal static class Errno
{
    internal const int EPERM = 1;
    internal const int ENOENT = 2;
    internal const int EINTR = 4;
    internal const int EBADF = 9;
    internal const int EAGAIN = 11;
    internal const int ENOMEM = 12;
    internal const int EACCES = 13;
    internal const int EFAULT = 14;
    internal const int EEXIST = 17;
    internal const int EINVAL = 22;
    internal const int ENFILE = 23;
    internal const int EMFILE = 24;
    internal const int EROFS = 30;
    internal const int EPIPE = 32;
    internal const int EPROTO = 71;
    internal const int ENOTSOCK = 88;
    internal const int EMSGSIZE = 90;
    internal const int EPROTONOSUPPORT = 93;
    internal const int EOPNOTSUPP = 95;
    internal const int EAFNOSUPPORT = 97;
    internal const int EADDRINUSE = 98;
    internal const int EADDRNOTAVAIL = 99;
    internal const int ENETDOWN = 100;
    internal const int ENETUNREACH = 101;
    internal const int ECONNABORTED = 103;
    internal const int ECONNRESET = 104;
    internal const int ENOBUFS = 105;
    internal const int ENOTCONN = 107;
    internal const int ESHUTDOWN = 108;
    internal const int ETIMEDOUT = 110;
    internal const int ECONNREFUSED = 111;
    internal const int EHOSTUNREACH = 113;
    internal const int EINPROGRESS = 115;

    /// <summary>
    /// The error number of the call on the line before. The runtime keeps it across the return from native code; any later call may
    /// overwrite it.
    /// </summary>
    internal static int Last => FromSystem(Marshal.GetLastSystemError());

    /// <summary>
    /// Translates an error number of this system that does not come through <see cref="Last"/>: from <c>SO_ERROR</c> or kevent(2).
    /// </summary>
    internal static int FromSystem(int errno) => Platform.IsLinux ? errno : FromBsd(errno, Platform.IsFreeBsd);

    /// <summary>Translates a number of Darwin's or FreeBSD's sys/errno.h. A number without a name here becomes negative.</summary>
    internal static int FromBsd(int errno, bool freeBsd) => errno switch
    {
        // EDEADLK, whose number is Linux's EAGAIN.
        11 => -11,

        // All systems have the same first numbers, up to here.
        < 35 => errno,
        35 => EAGAIN,
        36 => EINPROGRESS,
        38 => ENOTSOCK,
        40 => EMSGSIZE,
        43 => EPROTONOSUPPORT,
        45 => EOPNOTSUPP,
        47 => EAFNOSUPPORT,
        48 => EADDRINUSE,
        49 => EADDRNOTAVAIL,
        50 => ENETDOWN,
        51 => ENETUNREACH,
        53 => ECONNABORTED,
        54 => ECONNRESET,
        55 => ENOBUFS,
        57 => ENOTCONN,
        58 => ESHUTDOWN,
        60 => ETIMEDOUT,
        61 => ECONNREFUSED,
        65 => EHOSTUNREACH,
        92 when freeBsd => EPROTO,
        100 when !freeBsd => EPROTO,
        102 when !freeBsd => EOPNOTSUPP,
        _ => -errno,
    };

    /// <summary>The BCL's name for an error number, so that callers see the exceptions they know.</summary>
    internal static SocketError ToSocketError(int errno) => errno switch
    {
        0 => SocketError.Success,
        EINTR => SocketError.Interrupted,
        EBADF => SocketError.OperationAborted,
        EAGAIN => SocketError.WouldBlock,
        EPERM or EACCES or EROFS => SocketError.AccessDenied,
        EFAULT => SocketError.Fault,
        EINVAL => SocketError.InvalidArgument,
        ENFILE or EMFILE => SocketError.TooManyOpenSockets,
        EPIPE or ESHUTDOWN => SocketError.Shutdown,
        ENOTSOCK => SocketError.NotSocket,
        EMSGSIZE => SocketError.MessageSize,
        EPROTONOSUPPORT => SocketError.ProtocolNotSupported,
        EOPNOTSUPP => SocketError.OperationNotSupported,
        EAFNOSUPPORT => SocketError.AddressFamilyNotSupported,
        EADDRINUSE => SocketError.AddressAlreadyInUse,
        EADDRNOTAVAIL or ENOENT => SocketError.AddressNotAvailable,
        ENETDOWN => SocketError.NetworkDown,
        ENETUNREACH => SocketError.NetworkUnreachable,
        ECONNABORTED => SocketError.ConnectionAborted,
        ECONNRESET => SocketError.ConnectionReset,
        ENOBUFS or ENOMEM => SocketError.NoBufferSpaceAvailable,
        ENOTCONN => SocketError.NotConnected,
        ETIMEDOUT => SocketError.TimedOut,
        ECONNREFUSED => SocketError.ConnectionRefused,
        EHOSTUNREACH => SocketError.HostUnreachable,
        _ => SocketError.SocketError,
    };

    internal static SocketException ToException(int errno, string message) => new((int)ToSocketError(errno), message);
}
