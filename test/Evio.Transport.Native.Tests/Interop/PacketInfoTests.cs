using System.Buffers.Binary;
using System.Net;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Tests.Interop;

/// <summary>The control messages of all three systems, byte by byte: sys/socket.h, netinet/in.h, netinet6/in6.h of Linux (x86-64, arm64), macOS and FreeBSD.</summary>
public sealed class PacketInfoTests
{
    private const int IPv4Level = 0;
    private const int IPv6Level = 41;

    /// <summary>The systems that have a format.</summary>
    public enum OperatingSystemName
    {
        Linux,
        Darwin,
        FreeBsd,
    }

    [Fact]
    public void The_constants_are_those_of_the_headers()
    {
        Assert.Equal((8, 49, 50), (Linux.IP_PKTINFO, Linux.IPV6_RECVPKTINFO, Linux.IPV6_PKTINFO));
        Assert.Equal((26, 26, 61, 46), (Darwin.IP_RECVPKTINFO, Darwin.IP_PKTINFO, Darwin.IPV6_RECVPKTINFO, Darwin.IPV6_PKTINFO));
        Assert.Equal((7, 7, 36, 46), (FreeBsd.IP_RECVDSTADDR, FreeBsd.IP_SENDSRCADDR, FreeBsd.IPV6_RECVPKTINFO, FreeBsd.IPV6_PKTINFO));
        Assert.Equal((0, 41), (Platform.IPPROTO_IP, Platform.IPPROTO_IPV6));
        Assert.Same(
            OperatingSystem.IsMacOS() ? PacketInfoFormat.Darwin : OperatingSystem.IsFreeBSD() ? PacketInfoFormat.FreeBsd : PacketInfoFormat.Linux,
            PacketInfoFormat.Current);
    }

    [Theory]
    [InlineData(OperatingSystemName.Linux, false, IPv4Level, 8)]
    [InlineData(OperatingSystemName.Linux, true, IPv6Level, 49)]
    [InlineData(OperatingSystemName.Darwin, false, IPv4Level, 26)]
    [InlineData(OperatingSystemName.Darwin, true, IPv6Level, 61)]
    [InlineData(OperatingSystemName.FreeBsd, false, IPv4Level, 7)]
    [InlineData(OperatingSystemName.FreeBsd, true, IPv6Level, 36)]
    public void The_option_is_the_familys(OperatingSystemName system, bool isIPv6, int level, int option) =>
        Assert.Equal((level, option), FormatOf(system).OptionOf(isIPv6));

    [Theory]
    [InlineData(OperatingSystemName.Linux, 8)]
    [InlineData(OperatingSystemName.Darwin, 26)]
    public void An_in_pktinfo_has_an_interface_the_address_that_answers_and_the_one_that_was_asked(OperatingSystemName system, int type)
    {
        var control = Message(system, IPv4Level, type, [.. Number(7), 10, 0, 0, 1, 10, 0, 0, 255]);

        var info = FormatOf(system).Read(control);

        Assert.Equal([10, 0, 0, 255], info.Destination.ToArray());
        Assert.Equal([10, 0, 0, 1], info.Source.ToArray());
        Assert.Equal(7u, info.InterfaceIndex);
    }

    [Fact]
    public void Without_the_address_that_answers_it_is_the_one_that_was_asked()
    {
        var info = PacketInfoFormat.Darwin.Read(Message(OperatingSystemName.Darwin, IPv4Level, 26, [.. Number(7), 0, 0, 0, 0, 10, 0, 0, 1]));

        Assert.Equal([10, 0, 0, 1], info.Destination.ToArray());
        Assert.Equal([10, 0, 0, 1], info.Source.ToArray());
    }

    [Fact]
    public void FreeBSD_tells_an_address_alone()
    {
        var info = PacketInfoFormat.FreeBsd.Read(Message(OperatingSystemName.FreeBsd, IPv4Level, 7, [10, 0, 0, 1]));

        Assert.Equal([10, 0, 0, 1], info.Destination.ToArray());
        Assert.Equal([10, 0, 0, 1], info.Source.ToArray());
        Assert.Equal(0u, info.InterfaceIndex);
    }

    [Theory]
    [InlineData(OperatingSystemName.Linux, 50)]
    [InlineData(OperatingSystemName.Darwin, 46)]
    [InlineData(OperatingSystemName.FreeBsd, 46)]
    public void An_in6_pktinfo_has_an_address_and_an_interface(OperatingSystemName system, int type)
    {
        var address = IPAddress.Parse("fd00::2").GetAddressBytes();

        var info = FormatOf(system).Read(Message(system, IPv6Level, type, [.. address, .. Number(9)]));

        Assert.Equal(address, info.Destination.ToArray());
        Assert.Equal(address, info.Source.ToArray());
        Assert.Equal(9u, info.InterfaceIndex);
    }

    [Theory]
    [InlineData(OperatingSystemName.Linux, 8)]
    [InlineData(OperatingSystemName.Darwin, 26)]
    [InlineData(OperatingSystemName.FreeBsd, 7)]
    public void What_is_cut_short_or_something_else_tells_nothing(OperatingSystemName system, int type)
    {
        var format = FormatOf(system);
        var whole = Message(system, IPv4Level, type, [.. Number(7), 10, 0, 0, 1, 10, 0, 0, 1]);
        for (var length = 0; length < whole.Length; length++)
        {
            // The header's length is more than what is there, as with MSG_CTRUNC.
            Assert.True(format.Read(whole.AsSpan(0, length)).Destination.IsEmpty);
        }

        Assert.True(format.Read(Message(system, IPv4Level, type + 1, [.. Number(7), 10, 0, 0, 1, 10, 0, 0, 1])).Destination.IsEmpty);
        Assert.True(format.Read(Message(system, IPv6Level, type, [.. Number(7), 10, 0, 0, 1, 10, 0, 0, 1])).Destination.IsEmpty);
        Assert.True(format.Read(Message(system, IPv4Level, type, [10, 0, 0])).Destination.IsEmpty);

        // A length of all ones, and one that is less than the header.
        Assert.True(format.Read(Enumerable.Repeat((byte)0xFF, PacketInfoFormat.MaxSize).ToArray()).Destination.IsEmpty);
        Assert.True(format.Read(new byte[PacketInfoFormat.MaxSize]).Destination.IsEmpty);
    }

    [Theory]
    [InlineData(OperatingSystemName.Linux, 8, 32)]
    [InlineData(OperatingSystemName.Darwin, 26, 24)]
    public void An_IPv4_source_is_asked_for_with_an_in_pktinfo(OperatingSystemName system, int type, int space) =>
        AssertWritten(system, "10.0.0.1", space, Message(system, IPv4Level, type, [.. Number(0), 10, 0, 0, 1, 0, 0, 0, 0]));

    [Fact]
    public void An_IPv4_source_is_asked_for_with_an_address_on_FreeBSD() =>
        AssertWritten(OperatingSystemName.FreeBsd, "10.0.0.1", 24, Message(OperatingSystemName.FreeBsd, IPv4Level, 7, [10, 0, 0, 1]));

    [Theory]
    [InlineData(OperatingSystemName.Linux, 50, 40)]
    [InlineData(OperatingSystemName.Darwin, 46, 32)]
    [InlineData(OperatingSystemName.FreeBsd, 46, 40)]
    public void An_IPv6_source_is_asked_for_with_an_in6_pktinfo(OperatingSystemName system, int type, int space) =>
        AssertWritten(system, "fd00::2", space, Message(system, IPv6Level, type, [.. IPAddress.Parse("fd00::2").GetAddressBytes(), .. Number(0)]));

    [Fact]
    public void A_mapped_source_is_asked_for_as_the_system_takes_it()
    {
        var mapped = IPAddress.Parse("::ffff:10.0.0.1").GetAddressBytes();

        AssertWritten(OperatingSystemName.Linux, "::ffff:10.0.0.1", 40, Message(OperatingSystemName.Linux, IPv6Level, 50, [.. mapped, .. Number(0)]));
        AssertWritten(
            OperatingSystemName.Darwin, "::ffff:10.0.0.1", 24, Message(OperatingSystemName.Darwin, IPv4Level, 26, [.. Number(0), 10, 0, 0, 1, 0, 0, 0, 0]));
        AssertWritten(OperatingSystemName.FreeBsd, "::ffff:10.0.0.1", 24, Message(OperatingSystemName.FreeBsd, IPv4Level, 7, [10, 0, 0, 1]));
    }

    [Fact]
    public void A_link_local_source_is_asked_for_with_its_interface()
    {
        AssertWritten(
            OperatingSystemName.Linux, "fe80::2", 40, Message(OperatingSystemName.Linux, IPv6Level, 50, [.. IPAddress.Parse("fe80::2").GetAddressBytes(), .. Number(5)]));
        AssertWritten(
            OperatingSystemName.Linux, "169.254.1.2", 32, Message(OperatingSystemName.Linux, IPv4Level, 8, [.. Number(5), 169, 254, 1, 2, 0, 0, 0, 0]));
    }

    [Theory]
    [InlineData("0.0.0.0")]
    [InlineData("224.0.0.1")]
    [InlineData("239.1.2.3")]
    [InlineData("255.255.255.255")]
    [InlineData("::ffff:224.0.0.1")]
    [InlineData("::")]
    [InlineData("ff02::1")]
    public void What_cannot_be_a_source_is_not_asked_for(string address)
    {
        foreach (var system in Enum.GetValues<OperatingSystemName>())
        {
            AssertWritten(system, address, 0, []);
        }
    }

    [Fact]
    public void Nothing_is_asked_for_when_nothing_was_told() => Assert.Equal(0, PacketInfoFormat.Linux.Write(new byte[PacketInfoFormat.MaxSize], default));

    private static void AssertWritten(OperatingSystemName system, string address, int space, byte[] expected)
    {
        var bytes = IPAddress.Parse(address).GetAddressBytes();
        var control = new byte[PacketInfoFormat.MaxSize + 8];
        Array.Fill(control, (byte)0xEE);

        var length = FormatOf(system).Write(control, new PacketInfo(bytes, bytes, 5));

        Assert.Equal(space, length);
        Assert.Equal(expected, control[..expected.Length]);
        Assert.Equal(new byte[length - expected.Length], control[expected.Length..length]);
        Assert.All(control[PacketInfoFormat.MaxSize..], static value => Assert.Equal(0xEE, value));
    }

    private static PacketInfoFormat FormatOf(OperatingSystemName system) => system switch
    {
        OperatingSystemName.Linux => PacketInfoFormat.Linux,
        OperatingSystemName.Darwin => PacketInfoFormat.Darwin,
        _ => PacketInfoFormat.FreeBsd,
    };

    /// <summary>A message as the system's <c>struct cmsghdr</c>, <c>CMSG_DATA</c> and <c>CMSG_LEN</c> have it.</summary>
    private static byte[] Message(OperatingSystemName system, int level, int type, byte[] data)
    {
        var offset = system == OperatingSystemName.Darwin ? 12 : 16;
        var length = Number(offset + data.Length);
        byte[] header = system == OperatingSystemName.Linux
            ? [.. length, 0, 0, 0, 0, .. Number(level), .. Number(type)]
            : [.. length, .. Number(level), .. Number(type)];
        return [.. header, .. new byte[offset - header.Length], .. data];
    }

    private static byte[] Number(int value)
    {
        var bytes = new byte[sizeof(int)];
        BinaryPrimitives.WriteInt32LittleEndian(bytes, value);
        return bytes;
    }
}
