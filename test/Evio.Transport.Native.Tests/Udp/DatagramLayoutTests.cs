using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Tests.Udp;

public unsafe class DatagramLayoutTests
{
    [Fact]
    public void MessagesOfABatchAreLaidOutAsInC()
    {
        // struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; } on 64-bit Linux.
        MessageSlot slot;
        var start = (byte*)&slot;

        Assert.Equal(56, sizeof(MessageHeader));
        Assert.Equal(64, sizeof(MessageSlot));
        Assert.Equal(0, (byte*)&slot.Header - start);
        Assert.Equal(56, (byte*)&slot.Length - start);
        Assert.Equal(8, (byte*)&slot.Header.NameLength - start);
        Assert.Equal(16, (byte*)&slot.Header.Vectors - start);
    }
}
