using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// The descriptors of a listener: one per loop where the kernel can spread connections over several (TCP), otherwise a single one.
/// </summary>
internal sealed unsafe class ListenSockets
{
    private ListenSockets(int[] descriptors, EndPoint endPoint, bool ownsDescriptors, string? socketFile)
    {
        Descriptors = descriptors;
        EndPoint = endPoint;
        OwnsDescriptors = ownsDescriptors;
        SocketFile = socketFile;
    }

    internal int[] Descriptors { get; }

    /// <summary>The bound address, with the port that the kernel chose.</summary>
    internal EndPoint EndPoint { get; }

    internal bool OwnsDescriptors { get; }

    /// <summary>The file that a Unix-domain address made, which is removed when the listener ends.</summary>
    internal string? SocketFile { get; }

    internal static ListenSockets Bind(EndPoint endPoint, StreamListenerOptions options, int loopCount) => endPoint switch
    {
        IPEndPoint ip => BindTcp(ip, options, loopCount),
        UnixDomainSocketEndPoint unix => BindUnix(unix, options),
        _ => throw new ArgumentException(
            $"{endPoint} is a {endPoint.GetType().Name}; a listener takes an {nameof(IPEndPoint)} or a {nameof(UnixDomainSocketEndPoint)}.",
            nameof(endPoint)),
    };

    private static ListenSockets BindTcp(IPEndPoint endPoint, StreamListenerOptions options, int loopCount)
    {
        var descriptors = new List<int>(loopCount);
        try
        {
            EndPoint bound = endPoint;
            for (var i = 0; i < loopCount; i++)
            {
                var descriptor = Create(bound.AddressFamily == AddressFamily.InterNetwork ? Linux.AF_INET : Linux.AF_INET6, bound);
                descriptors.Add(descriptor);

                SetOption(descriptor, Linux.SOL_SOCKET, Linux.SO_REUSEADDR, 1);
                if (options.NoDelay)
                {
                    // Accepted sockets inherit it, which saves a system call for each.
                    SetOption(descriptor, Linux.IPPROTO_TCP, Linux.TCP_NODELAY, 1);
                }

                if (bound.AddressFamily == AddressFamily.InterNetworkV6)
                {
                    var onlyIPv6 = !options.DualMode || !endPoint.Address.Equals(IPAddress.IPv6Any);
                    SetOption(descriptor, Linux.IPPROTO_IPV6, Linux.IPV6_V6ONLY, onlyIPv6 ? 1 : 0);
                }

                // The first socket binds and listens without SO_REUSEPORT, and so fails if anybody has the port, one who shares it included. Only
                // then it lets its siblings in: two that are bound and do not listen yet would not see each other.
                var first = i == 0;
                if (!first || options.SharePort)
                {
                    SetOption(descriptor, Linux.SOL_SOCKET, Linux.SO_REUSEPORT, 1);
                }

                BindDescriptor(descriptor, bound);
                Listen(descriptor, options, bound);
                if (first)
                {
                    if (loopCount > 1 && !options.SharePort)
                    {
                        SetOption(descriptor, Linux.SOL_SOCKET, Linux.SO_REUSEPORT, 1);
                    }

                    bound = SocketAddresses.GetLocal(descriptor) ?? bound;
                }
            }

            return new ListenSockets([.. descriptors], bound, ownsDescriptors: true, socketFile: null);
        }
        catch
        {
            Close(descriptors);
            throw;
        }
    }

    private static ListenSockets BindUnix(UnixDomainSocketEndPoint endPoint, StreamListenerOptions options)
    {
        var file = SocketFiles.PathOf(endPoint);
        var descriptor = Create(Linux.AF_UNIX, endPoint);
        try
        {
            if (file is not null)
            {
                SocketFiles.RemoveStale(file);
            }

            BindDescriptor(descriptor, endPoint);
            Listen(descriptor, options, endPoint);
            return new ListenSockets([descriptor], endPoint, ownsDescriptors: true, file);
        }
        catch
        {
            Close([descriptor]);
            throw;
        }
    }

    internal static ListenSockets Inherit(int descriptor, bool ownsDescriptor, StreamListenerOptions options)
    {
        try
        {
            return Inherit(descriptor, options, ownsDescriptor);
        }
        catch when (ownsDescriptor)
        {
            _ = Libc.close(descriptor);
            throw;
        }
    }

    private static ListenSockets Inherit(int descriptor, StreamListenerOptions options, bool ownsDescriptor)
    {
        if (GetOption(descriptor, Linux.SO_TYPE) != Linux.SOCK_STREAM || GetOption(descriptor, Linux.SO_ACCEPTCONN) != 1)
        {
            throw Errno.ToException(Errno.EINVAL, $"Descriptor {descriptor} is a socket, but not a listening stream socket.");
        }

        var flags = Libc.fcntl(descriptor, Linux.F_GETFL, 0);
        if (flags < 0 || Libc.fcntl(descriptor, Linux.F_SETFL, flags | Linux.O_NONBLOCK) < 0
            || Libc.fcntl(descriptor, Linux.F_SETFD, Linux.FD_CLOEXEC) < 0)
        {
            throw Errno.ToException(Errno.Last, $"Descriptor {descriptor} could not be made non-blocking.");
        }

        var endPoint = SocketAddresses.GetLocal(descriptor)
            ?? throw Errno.ToException(Errno.EAFNOSUPPORT, $"Descriptor {descriptor} has neither an IP nor a Unix-domain address.");
        if (endPoint is IPEndPoint && options.NoDelay)
        {
            SetOption(descriptor, Linux.IPPROTO_TCP, Linux.TCP_NODELAY, 1);
        }

        // The socket file of an inherited descriptor is its creator's.
        return new ListenSockets([descriptor], endPoint, ownsDescriptor, socketFile: null);
    }

    private static int Create(int family, EndPoint endPoint)
    {
        var descriptor = Libc.socket(family, Linux.SOCK_STREAM | Linux.SOCK_NONBLOCK | Linux.SOCK_CLOEXEC, 0);
        return descriptor >= 0 ? descriptor : throw Errno.ToException(Errno.Last, $"No socket could be made for {endPoint}.");
    }

    private static void BindDescriptor(int descriptor, EndPoint endPoint)
    {
        var bytes = SocketAddresses.ToBytes(endPoint);
        fixed (byte* address = bytes)
        {
            if (Libc.bind(descriptor, address, (uint)bytes.Length) < 0)
            {
                throw BindException(Errno.ToSocketError(Errno.Last), endPoint);
            }
        }
    }

    private static void Listen(int descriptor, StreamListenerOptions options, EndPoint endPoint)
    {
        // Two binds with SO_REUSEADDR may both succeed; the second listen then fails (socket(7)).
        if (Libc.listen(descriptor, options.Backlog) < 0)
        {
            throw BindException(Errno.ToSocketError(Errno.Last), endPoint);
        }
    }

    internal static SocketException BindException(SocketError error, EndPoint endPoint) => new((int)error, error switch
    {
        SocketError.AddressAlreadyInUse => $"Address {endPoint} is already in use.",
        SocketError.AddressNotAvailable => $"Address {endPoint} is not an address of this machine.",
        SocketError.AccessDenied => $"Address {endPoint} may not be bound: permission denied.",
        _ => $"Address {endPoint} could not be bound ({error}).",
    });

    private static void SetOption(int descriptor, int level, int option, int value)
    {
        if (Libc.setsockopt(descriptor, level, option, &value, sizeof(int)) < 0)
        {
            var errno = Errno.Last;
            throw Errno.ToException(errno, $"Socket option {option} of level {level} could not be set to {value} (errno {errno}).");
        }
    }

    private static int GetOption(int descriptor, int option)
    {
        int value;
        uint length = sizeof(int);
        if (Libc.getsockopt(descriptor, Linux.SOL_SOCKET, option, &value, &length) < 0)
        {
            throw Errno.ToException(Errno.Last, $"Descriptor {descriptor} is not a socket.");
        }

        return value;
    }

    private static void Close(IEnumerable<int> descriptors)
    {
        foreach (var descriptor in descriptors)
        {
            _ = Libc.close(descriptor);
        }
    }
}
