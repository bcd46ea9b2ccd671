using System.Runtime.InteropServices;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Tests.Interop;

public sealed unsafe class LayoutTests
{
    [Theory]
    [InlineData(true, 12, 4)]
    [InlineData(false, 16, 8)]
    public void An_epoll_event_is_laid_out_as_the_C_library_has_it(bool packed, int size, int offsetOfData)
    {
        Assert.Equal(size, EpollEvent.SizeOn(packed));
        Assert.Equal(offsetOfData, EpollEvent.OffsetOfDataOn(packed));
        Assert.True(size <= EpollEvent.MaxSize);
    }

    [Fact]
    public void Only_x86_64_packs_an_epoll_event()
    {
        var packed = RuntimeInformation.ProcessArchitecture == Architecture.X64;

        Assert.Equal(EpollEvent.SizeOn(packed), EpollEvent.Size);
        Assert.Equal(EpollEvent.OffsetOfDataOn(packed), EpollEvent.OffsetOfData);
    }

    [Fact]
    public void An_epoll_event_reads_back_as_written_and_touches_nothing_else()
    {
        var bytes = stackalloc byte[EpollEvent.MaxSize + 1];
        new Span<byte>(bytes, EpollEvent.MaxSize + 1).Fill(0xEE);

        EpollEvent.Write(bytes, 0x8000_2005, 0xFEDC_BA98_7654_3210);

        Assert.Equal(0x8000_2005, EpollEvent.Events(bytes));
        Assert.Equal(0xFEDC_BA98_7654_3210, EpollEvent.Token(bytes));
        Assert.Equal(0xEE, bytes[EpollEvent.Size]);
    }

    [Fact]
    public void An_iovec_is_a_pointer_and_a_length()
    {
        IoVector vector;

        Assert.Equal(16, sizeof(IoVector));
        Assert.Equal(0, Offset(&vector, &vector.Base));
        Assert.Equal(8, Offset(&vector, &vector.Length));
    }

    [Fact]
    public void A_msghdr_has_the_offsets_of_the_64_bit_C_libraries()
    {
        MessageHeader header;

        Assert.Equal(56, sizeof(MessageHeader));
        Assert.Equal(0, Offset(&header, &header.Name));
        Assert.Equal(8, Offset(&header, &header.NameLength));
        Assert.Equal(16, Offset(&header, &header.Vectors));
        Assert.Equal(24, Offset(&header, &header.VectorCount));
        Assert.Equal(32, Offset(&header, &header.Control));
        Assert.Equal(40, Offset(&header, &header.ControlLength));
        Assert.Equal(48, Offset(&header, &header.Flags));
    }

    /// <summary>
    /// sys/socket.h of macOS (arm64, x86-64) and FreeBSD: pointer, socklen_t, pointer, int, pointer, socklen_t, int. One structure serves them and Linux, since
    /// what their narrower fields read is the low half of ours.
    /// </summary>
    [Fact]
    public void A_msghdr_holds_what_the_one_of_Darwin_and_FreeBSD_reads()
    {
        var bytes = stackalloc byte[sizeof(MessageHeader)];
        *(MessageHeader*)bytes = new MessageHeader
        {
            Name = (byte*)0x1112131415161718,
            NameLength = 28,
            Vectors = (IoVector*)0x2122232425262728,
            VectorCount = 16,
            Control = (byte*)0x3132333435363738,
            ControlLength = 0x44,
        };

        Assert.True(sizeof(MessageHeader) >= 48);
        Assert.Equal(0x1112131415161718, *(long*)bytes);
        Assert.Equal(28u, *(uint*)(bytes + 8));
        Assert.Equal(0x2122232425262728, *(long*)(bytes + 16));
        Assert.Equal(16, *(int*)(bytes + 24));
        Assert.Equal(0x3132333435363738, *(long*)(bytes + 32));
        Assert.Equal(0x44u, *(uint*)(bytes + 40));
        Assert.Equal(0, *(int*)(bytes + 44));
    }

    /// <summary>sys/event.h of macOS (arm64, x86-64), within <c>#pragma pack(4)</c>, which changes nothing; and of FreeBSD 12.</summary>
    [Fact]
    public void A_kevent_has_the_offsets_of_Darwin_and_FreeBSD()
    {
        KernelEvent kernelEvent;

        Assert.Equal(32, sizeof(KernelEvent));
        Assert.Equal(0, Offset(&kernelEvent, &kernelEvent.Identifier));
        Assert.Equal(8, Offset(&kernelEvent, &kernelEvent.Filter));
        Assert.Equal(10, Offset(&kernelEvent, &kernelEvent.Flags));
        Assert.Equal(12, Offset(&kernelEvent, &kernelEvent.FilterFlags));
        Assert.Equal(16, Offset(&kernelEvent, &kernelEvent.Data));
        Assert.Equal(24, Offset(&kernelEvent, &kernelEvent.UserData));
        Assert.Equal((32, 64, 64), (KernelEvent.SizeOn(freeBsd: false), KernelEvent.SizeOn(freeBsd: true), KernelEvent.MaxSize));
        Assert.Equal(KernelEvent.SizeOn(OperatingSystem.IsFreeBSD()), KernelEvent.Size);
    }

    [Fact]
    public void A_timespec_is_two_words()
    {
        TimeSpec time;

        Assert.Equal(16, sizeof(TimeSpec));
        Assert.Equal(0, Offset(&time, &time.Seconds));
        Assert.Equal(8, Offset(&time, &time.Nanoseconds));
        time = TimeSpec.FromMilliseconds(2345);
        Assert.Equal((2, 345_000_000), (time.Seconds, time.Nanoseconds));
    }

    [Fact]
    public void An_address_has_room_in_what_is_given_to_it()
    {
        // sizeof(struct sockaddr_in6) and sizeof(struct sockaddr_storage) of all these systems.
        Assert.Equal(28, SocketAddressBytes.Size);
        Assert.Equal(128, Platform.SizeOfSockAddrStorage);
    }

    private static long Offset(void* start, void* field) => (byte*)field - (byte*)start;
}
