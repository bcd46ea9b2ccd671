namespace Evio.Transport.Faults.Tests;

/// <summary>The names of Linux's error numbers (errno(3)), as docs/faults.md has them.</summary>
internal static class ErrorNumbers
{
    /// <summary>No error, but a transfer of less than could be transferred.</summary>
    internal const string Short = "short";

    private static readonly Dictionary<string, int> Numbers = new()
    {
        [Short] = FaultControl.Short,
        ["EPERM"] = 1,
        ["ENOENT"] = 2,
        ["ESRCH"] = 3,
        ["EINTR"] = 4,
        ["EIO"] = 5,
        ["ENXIO"] = 6,
        ["EBADF"] = 9,
        ["EAGAIN"] = 11,
        ["ENOMEM"] = 12,
        ["EACCES"] = 13,
        ["EFAULT"] = 14,
        ["EBUSY"] = 16,
        ["EEXIST"] = 17,
        ["ENODEV"] = 19,
        ["ENOTDIR"] = 20,
        ["EISDIR"] = 21,
        ["EINVAL"] = 22,
        ["ENFILE"] = 23,
        ["EMFILE"] = 24,
        ["ETXTBSY"] = 26,
        ["EFBIG"] = 27,
        ["ENOSPC"] = 28,
        ["EROFS"] = 30,
        ["EPIPE"] = 32,
        ["EDEADLK"] = 35,
        ["ENAMETOOLONG"] = 36,
        ["ENOLCK"] = 37,
        ["ELOOP"] = 40,
        ["ENOSR"] = 63,
        ["ENONET"] = 64,
        ["EPROTO"] = 71,
        ["EOVERFLOW"] = 75,
        ["ENOTSOCK"] = 88,
        ["EDESTADDRREQ"] = 89,
        ["EMSGSIZE"] = 90,
        ["EPROTOTYPE"] = 91,
        ["ENOPROTOOPT"] = 92,
        ["EPROTONOSUPPORT"] = 93,
        ["ESOCKTNOSUPPORT"] = 94,
        ["EOPNOTSUPP"] = 95,
        ["EAFNOSUPPORT"] = 97,
        ["EADDRINUSE"] = 98,
        ["EADDRNOTAVAIL"] = 99,
        ["ENETDOWN"] = 100,
        ["ENETUNREACH"] = 101,
        ["ECONNABORTED"] = 103,
        ["ECONNRESET"] = 104,
        ["ENOBUFS"] = 105,
        ["EISCONN"] = 106,
        ["ENOTCONN"] = 107,
        ["ETIMEDOUT"] = 110,
        ["ECONNREFUSED"] = 111,
        ["EHOSTDOWN"] = 112,
        ["EHOSTUNREACH"] = 113,
        ["EALREADY"] = 114,
        ["EINPROGRESS"] = 115,
        ["EDQUOT"] = 122,
    };

    internal static int Of(string name) => Numbers[name];
}
