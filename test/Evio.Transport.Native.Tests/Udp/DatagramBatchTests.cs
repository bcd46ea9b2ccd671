using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Udp;

/// <summary>What a batch and its socket refuse, in every build: nothing outside of the batch's memory is read or written.</summary>
public sealed class DatagramBatchTests
{
    [Fact]
    public void ADatagramThatIsNotThereIsRefused()
    {
        var batch = new DatagramBatch();

        Assert.Throws<ArgumentOutOfRangeException>(() => batch.GetDatagram(0).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.GetDatagram(-1).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.GetDatagram(DatagramBatch.Capacity).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.GetSender(0).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.AddReply(0, 1));
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.GetReplyLength(0));
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.Send(-1, 0));
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(DatagramBatch.RoomSize + 1)]
    [InlineData(int.MaxValue)]
    public void AReplyThatDoesNotFitIsRefused(int length)
    {
        using var socket = Udp();
        var batch = Received(socket);

        Assert.Throws<ArgumentOutOfRangeException>(() => batch.AddReply(0, length));
        Assert.Equal(0, batch.ReplyCount);
        batch.AddReply(0, DatagramBatch.RoomSize);
        Assert.Equal(1, batch.ReplyCount);
    }

    [Fact]
    public void MoreRepliesThanThereIsRoomForAreRefused()
    {
        using var socket = Udp();
        var batch = Received(socket);
        for (var i = 0; i < DatagramBatch.Capacity; i++)
        {
            batch.AddReply(0, 1);
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => batch.AddReply(0, 1));

        batch.ClearReplies();
        while (batch.HasReplySpace)
        {
            batch.AddReply(0, DatagramBatch.RoomSize);
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => batch.AddReply(0, DatagramBatch.RoomSize));
    }

    [Fact]
    public void RepliesThatAreLeftOverGoToNobodyElse()
    {
        using var socket = Udp();
        var batch = Received(socket);
        batch.AddReply(0, 1);

        SendToItself(socket);
        Assert.Equal(1, batch.Receive((int)socket.Handle).Count);

        Assert.Equal(0, batch.ReplyCount);
    }

    /// <summary>The end of the socket comes while it delivers: the datagrams that are left are dropped, and no call reaches a descriptor that may be another's.</summary>
    [Fact]
    public async Task ASocketThatIsClosedWhileItDeliversTouchesNothing()
    {
        await using var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
        var loop = group.Loops[0];
        var descriptors = SocketDescriptors.BindPerLoop(
            new IPEndPoint(IPAddress.Loopback, 0), Platform.SOCK_DGRAM, 1, dualMode: false, sharePort: false, onBound: null, out var bound);
        var socket = new DatagramSocket(loop, descriptors[0], bound);
        using var peer = new UdpPeer(bound);
        for (var i = 0; i < 3; i++)
        {
            peer.Send("?");
        }

        var handler = new Closer(socket);
        var delivered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(loop.TryPost(
            _ =>
            {
                try
                {
                    socket.Start(handler);
                    ((IPollTarget)socket).OnReady(ReadyEvents.Readable);
                    delivered.SetResult();
                }
                catch (Exception exception)
                {
                    delivered.SetException(exception);
                }
            },
            null));

        await delivered.Task.Within();
        await socket.CloseAsync().Within();
        Assert.Equal(1, handler.Datagrams);
        Assert.Null(socket.GetSender());
        Assert.Equal(0, socket.BytesSent);
    }

    private static DatagramBatch Received(Socket socket)
    {
        var batch = new DatagramBatch();
        SendToItself(socket);
        Assert.Equal(1, batch.Receive((int)socket.Handle).Count);
        return batch;
    }

    private static void SendToItself(Socket socket) => socket.SendTo(new byte[1], socket.LocalEndPoint!);

    private static Socket Udp()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { Blocking = false };
        socket.Bind(Server.Loopback);
        return socket;
    }

    private sealed class Closer(DatagramSocket socket) : IDatagramHandler
    {
        internal int Datagrams { get; private set; }

        public int OnDatagram(ReadOnlySpan<byte> datagram, Memory<byte> reply)
        {
            Datagrams++;
            ((IPollTarget)socket).OnLoopStopping();
            reply.Span[0] = 1;
            return 1;
        }
    }
}
