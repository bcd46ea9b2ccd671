namespace Evio.Transport.Faults.Tests;

/// <summary>The errors that the manual pages list for Linux, and what of other pages belongs to the call: network errors, tcp(7), ip(7).</summary>
internal static class Manual
{
    private const string Network = "ENETDOWN EPROTO ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH";
    private const string Stream = "ECONNRESET ETIMEDOUT EHOSTUNREACH ENETUNREACH";
    private const string Send =
        "EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN EMSGSIZE ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE EPERM short";
    private const string Receive = "EAGAIN EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK short";
    private const string File = "EACCES EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR";

    /// <summary>By call, of those that are made on Linux.</summary>
    internal static IReadOnlyDictionary<string, string[]> Errors { get; } = new Dictionary<string, string>
    {
        ["accept4"] =
            $"EAGAIN EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOBUFS ENOMEM ENOSR ENOTSOCK EPERM EPROTONOSUPPORT ESOCKTNOSUPPORT ETIMEDOUT {Network}",
        ["bind"] = "EACCES EADDRINUSE EADDRNOTAVAIL EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR ENOTSOCK EROFS",
        ["close"] = "EBADF EDQUOT EINTR EIO ENOSPC",
        ["connect"] =
            "EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED EFAULT EHOSTUNREACH EINPROGRESS EINTR EISCONN ENETUNREACH ENOTSOCK " +
            "EPERM EPROTOTYPE ETIMEDOUT",
        ["epoll_create1"] = "EINVAL EMFILE ENFILE ENOMEM",
        ["epoll_ctl"] = "EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM",
        ["epoll_wait"] = "EBADF EFAULT EINTR EINVAL",
        ["eventfd"] = "EINVAL EMFILE ENFILE ENODEV ENOMEM",
        ["fchmod"] = "EBADF EIO EPERM EROFS",
        ["fchmodat"] = $"{File} EIO EOPNOTSUPP EPERM EROFS",
        ["fcntl"] = "EACCES EAGAIN EBADF EBUSY EDEADLK EFAULT EINTR EINVAL EMFILE ENOLCK ENOTDIR EPERM",
        ["flock"] = "EAGAIN EBADF EINTR EINVAL ENOLCK",
        ["getsockname"] = "EBADF EFAULT EINVAL ENOBUFS ENOTSOCK",
        ["getsockopt"] = "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK",
        ["listen"] = "EADDRINUSE EBADF ENOTSOCK EOPNOTSUPP",
        ["open"] =
            "EACCES EAGAIN EBUSY EDQUOT EEXIST EFAULT EFBIG EINTR EINVAL EISDIR ELOOP EMFILE ENAMETOOLONG ENFILE ENODEV ENOENT ENOMEM ENOSPC ENOTDIR ENXIO " +
            "EOPNOTSUPP EOVERFLOW EPERM EROFS ETXTBSY",
        ["read"] = "EAGAIN EBADF EFAULT EINTR EINVAL EIO EISDIR",
        ["recv"] = $"{Receive} {Stream}",
        ["recvmmsg"] = $"{Receive} ENETDOWN EHOSTUNREACH",
        ["sched_setaffinity"] = "EFAULT EINVAL EPERM ESRCH",
        ["send"] = $"{Send} {Stream}",
        ["sendmmsg"] = $"{Send} ECONNREFUSED EHOSTUNREACH ENETUNREACH",
        ["sendmsg"] = $"{Send} {Stream}",
        ["setsockopt"] = "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK ENOMEM",
        ["shutdown"] = "EBADF EINVAL ENOTCONN ENOTSOCK",
        ["socket"] = "EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT",
        ["statx"] = File,
        ["write"] = "EAGAIN EBADF EDESTADDRREQ EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE",
    }.ToDictionary(static entry => entry.Key, static entry => entry.Value.Split(' ').Distinct().ToArray());

    /// <summary>Calls that are made on other systems only.</summary>
    internal static IReadOnlyCollection<string> Elsewhere { get; } = ["accept", "recvmsg"];
}
