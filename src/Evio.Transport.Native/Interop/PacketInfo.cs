using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>The address of this machine that a datagram came to, and the source of its reply. Addresses have 4 or 16 bytes.</summary>
/// <param name="destination">The address that the datagram came to; empty if it is not known.</param>
/// <param name="source">
/// The address that the reply comes from. It is the destination, except for broadcasts where the system reports another address.
/// </param>
/// <param name="interfaceIndex">The interface that the datagram came in by.</param>
internal readonly ref struct PacketInfo(ReadOnlySpan<byte> destination, ReadOnlySpan<byte> source, uint interfaceIndex)
{
    internal ReadOnlySpan<byte> Destination { get; } = destination;

    internal ReadOnlySpan<byte> Source { get; } = source;

    internal uint InterfaceIndex { get; } = interfaceIndex;
}

/// <summary>
/// Reads and writes the control messages that carry a <see cref="PacketInfo"/> (cmsg(3), ip(7), ipv6(7)). In them the system reports a
/// datagram's destination, and takes a reply's source. Each system has a format of its own.
/// </summary>
/// <remarks>
/// <code>
///            length at  level at  type at  data at  message of IPv4            message of IPv6
///  Linux     0 (8)      8         12       16       struct in_pktinfo (12)     struct in6_pktinfo (20)
///  Darwin    0 (4)      4         8        12       struct in_pktinfo (12)     struct in6_pktinfo (20)
///  FreeBSD   0 (4)      4         8        16       struct in_addr (4)         struct in6_pktinfo (20)
/// </code>
/// A socket of both families gets the destination of IPv4 datagrams in an IPv6 message, with a mapped address. Linux also takes a mapped
/// address as the source; Darwin and FreeBSD take the message of IPv4.
/// </remarks>
internal sealed class PacketInfoFormat
{
    /// <summary>Room for one message in any format: the header, an address of IPv6, an interface, and the padding.</summary>
    internal const int MaxSize = 40;

    private const int SizeOfIPv4 = 4;
    private const int SizeOfIPv6 = 16;

    /// <summary><c>struct in_pktinfo { int ipi_ifindex; struct in_addr ipi_spec_dst, ipi_addr; }</c></summary>
    private const int SizeOfInPktInfo = 12;

    /// <summary><c>struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; }</c></summary>
    private const int SizeOfIn6PktInfo = 20;

    private static readonly byte[] MappedPrefix = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF];

    internal static readonly PacketInfoFormat Linux = new()
    {
        LengthSize = 8,
        DataOffset = 16,
        Alignment = 8,
        OptionOfIPv4 = Interop.Linux.IP_PKTINFO,
        TypeOfIPv4 = Interop.Linux.IP_PKTINFO,
        HasInPktInfo = true,
        OptionOfIPv6 = Interop.Linux.IPV6_RECVPKTINFO,
        TypeOfIPv6 = Interop.Linux.IPV6_PKTINFO,
        TakesMappedSource = true,
    };

    internal static readonly PacketInfoFormat Darwin = new()
    {
        LengthSize = 4,
        DataOffset = 12,
        Alignment = 4,
        OptionOfIPv4 = Interop.Darwin.IP_RECVPKTINFO,
        TypeOfIPv4 = Interop.Darwin.IP_PKTINFO,
        HasInPktInfo = true,
        OptionOfIPv6 = Interop.Darwin.IPV6_RECVPKTINFO,
        TypeOfIPv6 = Interop.Darwin.IPV6_PKTINFO,
    };

    internal static readonly PacketInfoFormat FreeBsd = new()
    {
        LengthSize = 4,
        DataOffset = 16,
        Alignment = 8,
        OptionOfIPv4 = Interop.FreeBsd.IP_RECVDSTADDR,
        TypeOfIPv4 = Interop.FreeBsd.IP_SENDSRCADDR,
        OptionOfIPv6 = Interop.FreeBsd.IPV6_RECVPKTINFO,
        TypeOfIPv6 = Interop.FreeBsd.IPV6_PKTINFO,
    };

    /// <summary>The format of this system.</summary>
    internal static readonly PacketInfoFormat Current = Platform.IsFreeBsd ? FreeBsd : Platform.IsDarwin ? Darwin : Linux;

    private int LengthSize { get; init; }

    private int DataOffset { get; init; }

    private int Alignment { get; init; }

    private int OptionOfIPv4 { get; init; }

    private int TypeOfIPv4 { get; init; }

    private bool HasInPktInfo { get; init; }

    private int OptionOfIPv6 { get; init; }

    private int TypeOfIPv6 { get; init; }

    private bool TakesMappedSource { get; init; }

    /// <summary>The socket option that makes the system report destinations (setsockopt(2)).</summary>
    internal (int Level, int Option) OptionOf(bool isIPv6) =>
        isIPv6 ? (Platform.IPPROTO_IPV6, OptionOfIPv6) : (Platform.IPPROTO_IP, OptionOfIPv4);

    /// <summary>Reads the control message of a datagram. The result is empty if the message is cut short or of another kind.</summary>
    internal PacketInfo Read(ReadOnlySpan<byte> control)
    {
        if (control.Length < DataOffset)
        {
            return default;
        }

        var length = LengthSize == sizeof(long) ? MemoryMarshal.Read<ulong>(control) : MemoryMarshal.Read<uint>(control);
        if (length < (ulong)DataOffset || length > (ulong)control.Length)
        {
            return default;
        }

        var data = control[DataOffset..(int)length];
        var kind = (MemoryMarshal.Read<int>(control[LengthSize..]), MemoryMarshal.Read<int>(control[(LengthSize + sizeof(int))..]));
        if (kind == (Platform.IPPROTO_IPV6, TypeOfIPv6) && data.Length >= SizeOfIn6PktInfo)
        {
            var address = data[..SizeOfIPv6];
            return new PacketInfo(address, address, MemoryMarshal.Read<uint>(data[SizeOfIPv6..]));
        }

        if (kind != (Platform.IPPROTO_IP, TypeOfIPv4))
        {
            return default;
        }

        if (!HasInPktInfo)
        {
            return data.Length >= SizeOfIPv4 ? new PacketInfo(data[..SizeOfIPv4], data[..SizeOfIPv4], 0) : default;
        }

        if (data.Length < SizeOfInPktInfo)
        {
            return default;
        }

        // For a broadcast, Linux reports the address that answers it. Darwin does not.
        var specific = data.Slice(4, SizeOfIPv4);
        var destination = data.Slice(8, SizeOfIPv4);
        return new PacketInfo(destination, specific.IndexOfAnyExcept((byte)0) < 0 ? destination : specific, MemoryMarshal.Read<uint>(data));
    }

    /// <summary>Writes the message that asks for a reply's source.</summary>
    /// <param name="control">Room for <see cref="MaxSize"/> bytes.</param>
    /// <param name="info">The addresses of the datagram.</param>
    /// <returns>The length of the message, or 0 if there is no source to ask for. Then the system chooses it.</returns>
    /// <remarks>
    /// The message names the interface only if an address is of use only together with it. For other addresses it would overrule the
    /// routes. If the route to the sender leads through another interface than the one that its datagram came in by, the reply would not
    /// arrive.
    /// </remarks>
    internal int Write(Span<byte> control, PacketInfo info)
    {
        var source = info.Source;
        if (IsNoSource(source))
        {
            return 0;
        }

        control[..MaxSize].Clear();
        var data = control[DataOffset..];
        if (source.Length == SizeOfIPv6 && (TakesMappedSource || !IsMapped(source)))
        {
            source.CopyTo(data);
            MemoryMarshal.Write(data[SizeOfIPv6..], IsLinkLocal(source) ? info.InterfaceIndex : 0);
            return WriteHeader(control, Platform.IPPROTO_IPV6, TypeOfIPv6, SizeOfIn6PktInfo);
        }

        source = source[^SizeOfIPv4..];
        if (!HasInPktInfo)
        {
            source.CopyTo(data);
            return WriteHeader(control, Platform.IPPROTO_IP, TypeOfIPv4, SizeOfIPv4);
        }

        MemoryMarshal.Write(data, IsLinkLocal(source) ? info.InterfaceIndex : 0);
        source.CopyTo(data[4..]);
        return WriteHeader(control, Platform.IPPROTO_IP, TypeOfIPv4, SizeOfInPktInfo);
    }

    private int WriteHeader(Span<byte> control, int level, int type, int size)
    {
        // The upper half of a length of 8 bytes is clear.
        BitConverter.TryWriteBytes(control, DataOffset + size);
        BitConverter.TryWriteBytes(control[LengthSize..], level);
        BitConverter.TryWriteBytes(control[(LengthSize + sizeof(int))..], type);
        return DataOffset + ((size + Alignment - 1) & -Alignment);
    }

    /// <summary>
    /// Whether an address cannot be a source: the unspecified address, a multicast address, or the broadcast address of all machines.
    /// </summary>
    private static bool IsNoSource(ReadOnlySpan<byte> address)
    {
        if (address.IndexOfAnyExcept((byte)0) < 0)
        {
            return true;
        }

        if (address.Length == SizeOfIPv6 && !IsMapped(address))
        {
            return address[0] == 0xFF;
        }

        var ipv4 = address[^SizeOfIPv4..];
        return (ipv4[0] & 0xF0) == 0xE0 || ipv4.IndexOfAnyExcept((byte)0xFF) < 0;
    }

    /// <summary>Whether an address is link-local: in fe80::/10 or 169.254.0.0/16.</summary>
    private static bool IsLinkLocal(ReadOnlySpan<byte> address) => address.Length == SizeOfIPv6 && !IsMapped(address)
        ? (BinaryPrimitives.ReadUInt16BigEndian(address) & 0xFFC0) == 0xFE80
        : BinaryPrimitives.ReadUInt16BigEndian(address[^SizeOfIPv4..]) == 0xA9FE;

    private static bool IsMapped(ReadOnlySpan<byte> address) => address.StartsWith(MappedPrefix);
}
