using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// The descriptors of a listener: one per loop where the kernel can spread connections over several (TCP), otherwise a single one.
/// </summary>
internal sealed unsafe class ListenSockets
{
    private ListenSockets(int[] descriptors, EndPoint endPoint, bool ownsDescriptors, SocketFile? socketFile)
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

    /// <summary>The file of a Unix-domain address, which is removed when the listener ends.</summary>
    internal SocketFile? SocketFile { get; }

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
        var descriptors = SocketDescriptors.BindPerLoop(
            endPoint,
            Platform.SOCK_STREAM,
            loopCount,
            options.DualMode,
            options.SharePort,
            descriptor =>
            {
                if (options.NoDelay)
                {
                    // Accepted sockets inherit it, which saves a system call for each.
                    SocketDescriptors.SetOption(descriptor, Platform.IPPROTO_TCP, Platform.TCP_NODELAY, 1);
                }

                Listen(descriptor, options, endPoint);
            },
            out var bound);
        return new ListenSockets(descriptors, bound, ownsDescriptors: true, socketFile: null);
    }

    private static ListenSockets BindUnix(UnixDomainSocketEndPoint endPoint, StreamListenerOptions options)
    {
        var path = SocketFiles.PathOf(endPoint);
        var mode = path is null ? null : options.UnixSocketMode;
        var descriptor = SocketDescriptors.Create(Platform.AF_UNIX, Platform.SOCK_STREAM, endPoint);
        SocketFile? file = null;
        try
        {
            if (mode is { } limit)
            {
                SocketFiles.LimitMode(descriptor, limit);
            }

            if (path is null)
            {
                SocketDescriptors.Bind(descriptor, endPoint);
            }
            else
            {
                file = SocketFiles.Make(path, () => SocketDescriptors.Bind(descriptor, endPoint));
            }

            if (mode is { } exact)
            {
                // Set before the socket listens: until then no client can connect, whatever the mode is.
                SocketFiles.SetMode(path!, exact);
            }

            Listen(descriptor, options, endPoint);
            return new ListenSockets([descriptor], endPoint, ownsDescriptors: true, file);
        }
        catch
        {
            SocketFiles.Remove(file);
            SocketDescriptors.Close([descriptor]);
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
        if (GetOption(descriptor, Platform.SO_TYPE) != Platform.SOCK_STREAM)
        {
            throw Errno.ToException(Errno.EINVAL, $"Descriptor {descriptor} is a socket, but not a stream socket.");
        }

        if (!SocketCalls.SetNonBlocking(descriptor, true) || Libc.fcntl(descriptor, Platform.F_SETFD, Platform.FD_CLOEXEC) < 0)
        {
            throw Errno.ToException(Errno.Last, $"Descriptor {descriptor} could not be made non-blocking.");
        }

        SocketCalls.SuppressSignal(descriptor);

        var endPoint = SocketAddresses.GetLocal(descriptor)
            ?? throw Errno.ToException(Errno.EAFNOSUPPORT, $"Descriptor {descriptor} has neither an IP nor a Unix-domain address.");
        if (endPoint is IPEndPoint && options.NoDelay)
        {
            SocketDescriptors.SetOption(descriptor, Platform.IPPROTO_TCP, Platform.TCP_NODELAY, 1);
        }

        if (!SocketCalls.IsListening(descriptor))
        {
            // listen(2) would give it a port of the kernel's choice.
            if (endPoint is IPEndPoint { Port: 0 })
            {
                throw Errno.ToException(Errno.EINVAL, $"Descriptor {descriptor} is neither listening nor bound.");
            }

            Listen(descriptor, options, endPoint);
        }

        // The socket file of an inherited descriptor belongs to its creator.
        return new ListenSockets([descriptor], endPoint, ownsDescriptor, socketFile: null);
    }

    private static void Listen(int descriptor, StreamListenerOptions options, EndPoint endPoint)
    {
        // Two binds with SO_REUSEADDR may both succeed; the second listen then fails (socket(7)).
        if (Libc.listen(descriptor, options.Backlog) < 0)
        {
            throw SocketDescriptors.BindException(Errno.ToSocketError(Errno.Last), endPoint);
        }
    }

    private static int GetOption(int descriptor, int option)
    {
        int value;
        uint length = sizeof(int);
        if (Libc.getsockopt(descriptor, Platform.SOL_SOCKET, option, &value, &length) < 0)
        {
            throw Errno.ToException(Errno.Last, $"Descriptor {descriptor} is not a socket.");
        }

        return value;
    }
}
