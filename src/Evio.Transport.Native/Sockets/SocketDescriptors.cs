using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>Creates, sets up, binds and connects socket descriptors, for streams and datagrams.</summary>
internal static unsafe class SocketDescriptors
{
    /// <summary>Creates another descriptor of the same connection, which child processes do not inherit (fcntl(2)).</summary>
    /// <exception cref="SocketException">No descriptor is left.</exception>
    internal static int Duplicate(int descriptor)
    {
        var duplicate = Libc.fcntl(descriptor, Platform.F_DUPFD_CLOEXEC, 0);
        if (duplicate < 0)
        {
            var errno = Errno.Last;
            throw Errno.ToException(errno, $"The connection's descriptor could not be duplicated (errno {errno}).");
        }

        return duplicate;
    }

    /// <summary>
    /// Binds one descriptor per loop to the same IP address. The kernel spreads incoming connections or datagrams over them. Where it does
    /// not (<see cref="Platform.SpreadsSharedPorts"/>), a single descriptor is bound.
    /// </summary>
    /// <param name="endPoint">The address. With port 0, all descriptors get the port that the kernel chose for the first one.</param>
    /// <param name="type"><see cref="Platform.SOCK_STREAM"/> or <see cref="Platform.SOCK_DGRAM"/>.</param>
    /// <param name="count">The number of loops.</param>
    /// <param name="dualMode">Whether <see cref="IPAddress.IPv6Any"/> takes IPv4 as well.</param>
    /// <param name="sharePort">Whether other processes may bind the same port.</param>
    /// <param name="onBound">Called with each bound descriptor before the next one is bound.</param>
    /// <param name="bound">The bound address.</param>
    /// <exception cref="SocketException">The address is in use, or cannot be bound for another reason.</exception>
    internal static int[] BindPerLoop(IPEndPoint endPoint, int type, int count, bool dualMode, bool sharePort, Action<int>? onBound, out EndPoint bound)
    {
        count = Platform.SpreadsSharedPorts ? count : 1;
        var descriptors = new List<int>(count);
        try
        {
            bound = endPoint;
            for (var i = 0; i < count; i++)
            {
                var isIPv4 = endPoint.AddressFamily == AddressFamily.InterNetwork;
                var descriptor = Create(SocketAddresses.FamilyOf(endPoint), type, bound);
                descriptors.Add(descriptor);
                if (type == Platform.SOCK_STREAM)
                {
                    // Connections of an earlier server that linger in TIME_WAIT do not prevent the bind. On a UDP socket the option would
                    // let any other socket with the option take the port over (socket(7)).
                    SetOption(descriptor, Platform.SOL_SOCKET, Platform.SO_REUSEADDR, 1);
                }
                else if (IsAny(endPoint.Address))
                {
                    var (level, option) = PacketInfoFormat.Current.OptionOf(isIPv6: !isIPv4);
                    SetOption(descriptor, level, option, 1);
                }

                if (!isIPv4)
                {
                    var onlyIPv6 = !dualMode || !endPoint.Address.Equals(IPAddress.IPv6Any);
                    SetOption(descriptor, Platform.IPPROTO_IPV6, Platform.IPV6_V6ONLY, onlyIPv6 ? 1 : 0);
                }

                // The first socket binds (and listens) without SO_REUSEPORT. So it fails if any other socket has the port, even one that
                // shares it. It lets its siblings in only after that, because two sockets that are bound and do not listen yet would not
                // see each other.
                var first = i == 0;
                if (!first || sharePort)
                {
                    SetOption(descriptor, Platform.SOL_SOCKET, Platform.SO_REUSEPORT, 1);
                }

                Bind(descriptor, bound);
                onBound?.Invoke(descriptor);
                if (first)
                {
                    if (count > 1 && !sharePort)
                    {
                        SetOption(descriptor, Platform.SOL_SOCKET, Platform.SO_REUSEPORT, 1);
                    }

                    bound = SocketAddresses.GetLocal(descriptor)
                        ?? throw Errno.ToException(Errno.Last, $"The address that {endPoint} was bound to is not known.");
                }
            }

            return [.. descriptors];
        }
        catch
        {
            Close(descriptors);
            throw;
        }
    }

    /// <summary>
    /// Whether an address stands for all addresses of this machine. A datagram socket that is bound to it learns the destination of each
    /// datagram (<see cref="PacketInfo"/>), because the reply has to come from there.
    /// </summary>
    internal static bool IsAny(IPAddress address) => address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any);

    /// <summary>Creates a non-blocking socket that child processes do not inherit.</summary>
    internal static int Create(int family, int type, EndPoint endPoint)
    {
        var descriptor = SocketCalls.Create(family, type);
        return descriptor >= 0 ? descriptor : throw Errno.ToException(Errno.Last, $"No socket could be made for {endPoint}.");
    }

    internal static void Bind(int descriptor, EndPoint endPoint)
    {
        var bytes = SocketAddresses.ToBytes(endPoint);

        // SAFETY: the address is fixed for the duration of the call.
        fixed (byte* address = bytes)
        {
            if (Libc.bind(descriptor, address, (uint)bytes.Length) < 0)
            {
                var errno = Errno.Last;
                throw errno == Errno.EROFS ? ReadOnlyException(endPoint) : BindException(Errno.ToSocketError(errno), endPoint);
            }
        }
    }

    /// <summary>Begins to connect (connect(2)).</summary>
    /// <returns>0 if the socket is connected already, or the error number.</returns>
    internal static int Connect(int descriptor, EndPoint endPoint)
    {
        var bytes = SocketAddresses.ToBytes(endPoint);

        // SAFETY: the address is fixed for the duration of the call.
        fixed (byte* address = bytes)
        {
            return Libc.connect(descriptor, address, (uint)bytes.Length) < 0 ? Errno.Last : 0;
        }
    }

    internal static SocketException BindException(SocketError error, EndPoint endPoint) => new((int)error, error switch
    {
        // For the names of files bind(2) gives these errors another meaning (unix(7)). The second one includes ENOENT.
        SocketError.AddressAlreadyInUse when endPoint.AddressFamily == AddressFamily.Unix =>
            $"Address {endPoint} is already in use: a server listens there, or it is a file that is no socket.",
        SocketError.AddressNotAvailable when endPoint.AddressFamily == AddressFamily.Unix =>
            $"Address {endPoint} could not be bound: its directory does not exist.",
        SocketError.AddressAlreadyInUse => $"Address {endPoint} is already in use.",
        SocketError.AddressNotAvailable => $"Address {endPoint} is not an address of this machine.",
        SocketError.AccessDenied => $"Address {endPoint} may not be bound: permission denied.",
        _ => $"Address {endPoint} could not be bound ({error}).",
    });

    internal static SocketException ReadOnlyException(EndPoint endPoint) =>
        Errno.ToException(Errno.EROFS, $"Address {endPoint} could not be bound: its file system is read-only.");

    internal static void SetOption(int descriptor, int level, int option, int value)
    {
        if (Libc.setsockopt(descriptor, level, option, &value, sizeof(int)) < 0)
        {
            var errno = Errno.Last;
            throw Errno.ToException(errno, $"Socket option {option} of level {level} could not be set to {value} (errno {errno}).");
        }
    }

    /// <summary>Takes the pending error of a socket (<c>SO_ERROR</c>, socket(7)).</summary>
    /// <returns>0 if there is none.</returns>
    internal static int TakeError(int descriptor)
    {
        int error = 0;
        uint length = sizeof(int);
        return Libc.getsockopt(descriptor, Platform.SOL_SOCKET, Platform.SO_ERROR, &error, &length) < 0 ? Errno.Last : Errno.FromSystem(error);
    }

    internal static void Close(IEnumerable<int> descriptors)
    {
        foreach (var descriptor in descriptors)
        {
            _ = Libc.close(descriptor);
        }
    }
}
