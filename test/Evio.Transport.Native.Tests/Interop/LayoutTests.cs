using System.Runtime.InteropServices;
using Evio.Transport.Native.Interop;

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

    private static long Offset(void* start, void* field) => (byte*)field - (byte*)start;
}
