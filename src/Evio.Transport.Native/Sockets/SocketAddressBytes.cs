using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// The <c>sockaddr</c> of an IP end point, as the kernel wrote it: 28 bytes for IPv6, 16 for IPv4. So a connection whose address is never
/// read costs no object. Other addresses (Unix paths) are not kept.
/// </summary>
[InlineArray(Size)]
internal struct SocketAddressBytes
{
    internal const int Size = 28;

    private byte _first;

    internal static SocketAddressBytes From(ReadOnlySpan<byte> address)
    {
        SocketAddressBytes bytes = default;
        if (address.Length <= Size)
        {
            address.CopyTo(bytes);
        }

        return bytes;
    }

    internal readonly IPEndPoint? ToIPEndPoint()
    {
        ReadOnlySpan<byte> bytes = this;
        return SocketAddresses.ToEndPoint(bytes) as IPEndPoint;
    }
}

/// <summary>Converts between the BCL's end points and the kernel's <c>sockaddr</c>. The BCL knows each system's layout.</summary>
internal static unsafe class SocketAddresses
{
    private static readonly IPEndPoint IPv4 = new(IPAddress.Any, 0);
    private static readonly IPEndPoint IPv6 = new(IPAddress.IPv6Any, 0);
    private static readonly UnixDomainSocketEndPoint Unix = new("/");

    internal static int FamilyOf(EndPoint endPoint) => endPoint.AddressFamily switch
    {
        AddressFamily.InterNetwork => Platform.AF_INET,
        AddressFamily.InterNetworkV6 => Platform.AF_INET6,
        AddressFamily.Unix => Platform.AF_UNIX,
        _ => throw new ArgumentException($"{endPoint} is neither an IP nor a Unix-domain end point.", nameof(endPoint)),
    };

    internal static ReadOnlySpan<byte> ToBytes(EndPoint endPoint)
    {
        var address = endPoint.Serialize();
        return address.Buffer.Span[..address.Size];
    }

    /// <summary>The end point in a <c>sockaddr</c>, or null for a family that is neither IP nor Unix.</summary>
    internal static EndPoint? ToEndPoint(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < sizeof(ushort))
        {
            return null;
        }

        return Platform.FamilyOf(bytes) switch
        {
            Platform.AF_INET => Create(IPv4, AddressFamily.InterNetwork, bytes[..16]),
            Platform.AF_UNIX => Create(Unix, AddressFamily.Unix, bytes),
            var family when family == Platform.AF_INET6 => Create(IPv6, AddressFamily.InterNetworkV6, bytes),
            _ => null,
        };

        static EndPoint Create(EndPoint kind, AddressFamily family, ReadOnlySpan<byte> bytes)
        {
            var address = new SocketAddress(family, bytes.Length);
            bytes.CopyTo(address.Buffer.Span);
            return kind.Create(address);
        }
    }

    /// <summary>The destination of a datagram, one of the addresses that its socket is bound to; null when it is not known.</summary>
    internal static IPEndPoint? ToEndPoint(PacketInfo info, EndPoint bound)
    {
        if (info.Destination.IsEmpty)
        {
            return null;
        }

        var address = new IPAddress(info.Destination);
        if (address.IsIPv6LinkLocal)
        {
            address.ScopeId = info.InterfaceIndex;
        }

        return new IPEndPoint(address, ((IPEndPoint)bound).Port);
    }

    internal static SocketAddressBytes GetLocalBytes(int descriptor)
    {
        SocketAddressBytes bytes = default;
        uint length = SocketAddressBytes.Size;
        fixed (byte* address = (Span<byte>)bytes)
        {
            _ = Libc.getsockname(descriptor, address, &length);
        }

        return bytes;
    }

    internal static EndPoint? GetLocal(int descriptor)
    {
        var buffer = stackalloc byte[Platform.SizeOfSockAddrStorage];
        uint length = Platform.SizeOfSockAddrStorage;
        return Libc.getsockname(descriptor, buffer, &length) == 0
            ? ToEndPoint(new ReadOnlySpan<byte>(buffer, (int)Math.Min(length, Platform.SizeOfSockAddrStorage)))
            : null;
    }
}
