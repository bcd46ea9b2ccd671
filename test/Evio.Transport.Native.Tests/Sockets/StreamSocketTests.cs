using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

/// <summary>Receiving, sending, and the end of either.</summary>
public sealed class StreamSocketTests : IAsyncLifetime
{
    private readonly TestGroup _group = new();
    private Server _server = null!;

    public async ValueTask InitializeAsync() => _server = await Server.StartAsync(_group);

    public async ValueTask DisposeAsync()
    {
        await _server.DisposeAsync();
        await _group.DisposeAsync();
    }

    [Fact]
    public void What_the_peer_sent_is_received()
    {
        var (client, handler) = _server.Open();
        client.Send([1, 2, 3]);
        WaitFor(handler, ReadyEvents.Readable);

        var buffer = new byte[10];
        var result = handler.Socket.Receive(buffer);

        Assert.Equal((true, 3, SocketError.Success), (result.IsSuccess, result.Count, result.Error));
        Assert.Equal([1, 2, 3], buffer[..3]);
    }

    [Fact]
    public void Nothing_to_receive_would_block()
    {
        var (_, handler) = _server.Open();

        Assert.True(handler.Socket.Receive(new byte[1]).WouldBlock);
    }

    [Fact]
    public void What_is_sent_arrives()
    {
        var (client, handler) = _server.Open();

        Assert.Equal(3, handler.Socket.Send([1, 2, 3]).Count);

        Assert.Equal([1, 2, 3], ReceiveExactly(client, 3));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(StreamSocket.MaxBuffers)]
    [InlineData(StreamSocket.MaxBuffers + 5)]
    public void Several_buffers_are_sent_in_order(int count)
    {
        var (client, handler) = _server.Open();
        var buffers = Enumerable.Range(0, count).Select(static i => new ReadOnlyMemory<byte>([(byte)i, (byte)(i + 100)])).ToArray();

        var sent = handler.Socket.Send(buffers).Count;

        Assert.Equal(2 * Math.Min(count, StreamSocket.MaxBuffers), sent);
        Assert.Equal(buffers.SelectMany(static buffer => buffer.ToArray()).Take(sent), ReceiveExactly(client, sent));
    }

    [Fact]
    public void Empty_buffers_among_others_are_sent_as_nothing()
    {
        var (client, handler) = _server.Open();
        ReadOnlyMemory<byte>[] buffers = [ReadOnlyMemory<byte>.Empty, new byte[] { 1 }, ReadOnlyMemory<byte>.Empty, new byte[] { 2 }];

        Assert.Equal(2, handler.Socket.Send(buffers).Count);
        Assert.Equal([1, 2], ReceiveExactly(client, 2));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_full_connection_takes_less_than_given_then_nothing_and_tells_when_there_is_room(bool vectored)
    {
        var (client, handler) = _server.Open();
        WaitFor(handler, ReadyEvents.Writable);
        handler.ForgetEvents();
        var block = Pattern(1 << 20);
        var sent = 0L;
        var wasShort = false;
        while (true)
        {
            var offset = (int)(sent % block.Length);
            var result = vectored
                ? handler.Socket.Send([block.AsMemory(offset), block])
                : handler.Socket.Send(block.AsSpan(offset));
            if (result.WouldBlock)
            {
                break;
            }

            Assert.True(result.IsSuccess);
            wasShort = result.Count < block.Length - offset + (vectored ? block.Length : 0);
            sent += result.Count;
        }

        Assert.True(wasShort, "The last send before the refusal was not short.");
        Assert.False(handler.Seen.HasFlag(ReadyEvents.Writable));

        var buffer = new byte[1 << 16];
        for (var received = 0L; received < sent;)
        {
            var count = client.Receive(buffer);
            Assert.True(count > 0);
            var offset = (int)(received % block.Length);
            var expected = block.AsSpan(offset, Math.Min(count, block.Length - offset));
            Assert.True(expected.SequenceEqual(buffer.AsSpan(0, expected.Length)), $"Other bytes arrived than were sent, at {received}.");
            Assert.True(block.AsSpan(0, count - expected.Length).SequenceEqual(buffer.AsSpan(expected.Length, count - expected.Length)));
            received += count;
        }

        WaitFor(handler, ReadyEvents.Writable);
        Assert.True(handler.Socket.Send([1]).IsSuccess);
    }

    [Fact]
    public void The_end_of_the_peers_output_is_received_as_0_after_all_bytes()
    {
        var (client, handler) = _server.Open();
        client.Send([1]);
        client.Shutdown(SocketShutdown.Send);
        WaitFor(handler, ReadyEvents.PeerClosed);

        Assert.Equal(1, handler.Socket.Receive(new byte[10]).Count);
        for (var i = 0; i < 2; i++)
        {
            var end = handler.Socket.Receive(new byte[10]);
            Assert.Equal((true, 0, false), (end.IsSuccess, end.Count, end.WouldBlock));
        }

        // The other direction is as good as before.
        Assert.Equal(1, handler.Socket.Send([7]).Count);
        Assert.Equal([7], ReceiveExactly(client, 1));
    }

    [Fact]
    public void After_ShutdownSend_the_peer_sees_all_bytes_and_the_end()
    {
        var (client, handler) = _server.Open();
        Assert.Equal(1, handler.Socket.Send([1]).Count);
        handler.Socket.ShutdownSend();

        Assert.Equal([1], ReceiveExactly(client, 1));
        Assert.Equal(0, client.Receive(new byte[1]));
        Assert.Equal(SocketError.Shutdown, handler.Socket.Send([2]).Error);

        // The other direction is as good as before.
        client.Send([3]);
        WaitFor(handler, ReadyEvents.Readable);
        Assert.Equal(1, handler.Socket.Receive(new byte[2]).Count);
    }

    [Fact]
    public void A_reset_of_the_peer_is_received_as_such()
    {
        var (client, handler) = _server.Open();
        client.LingerState = new LingerOption(true, 0);
        client.Dispose();
        WaitFor(handler, ReadyEvents.Error | ReadyEvents.HangUp);

        Assert.Equal(SocketError.ConnectionReset, handler.Socket.Receive(new byte[1]).Error);
        Assert.Equal(SocketError.Shutdown, handler.Socket.Send([1]).Error);
    }

    [Fact]
    public void Sending_to_a_peer_that_is_gone_raises_no_signal()
    {
        var (client, handler) = _server.Open();
        client.Dispose();
        WaitFor(handler, ReadyEvents.PeerClosed);

        // The first send brings the peer's reset; SIGPIPE would end the process at a later one.
        Waiting.Until(() => !handler.Socket.Send([1]).IsSuccess);
        Assert.False(handler.Socket.Send([1]).IsSuccess);
        Assert.False(handler.Socket.Send([new byte[1], new byte[1]]).IsSuccess);
    }

    [Fact]
    public async Task A_socket_is_started_once_and_on_its_loop()
    {
        var (_, handler) = _server.Open();

        Assert.Throws<InvalidOperationException>(() => handler.Socket.Start(handler));
        await _group.RunAsync(() => Assert.Throws<InvalidOperationException>(() => handler.Socket.Start(handler)));
    }

    [Fact]
    public async Task A_closed_socket_is_not_started()
    {
        var refused = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var listener = await _group.ListenAsync(Server.Loopback, socket =>
        {
            socket.Close();
            refused.SetResult(Record.Exception(() => socket.Start(new RecordingHandler(socket))));
        });
        using var client = Server.Dial(listener.LocalEndPoint);

        Assert.IsType<InvalidOperationException>(await refused.Task.Within());
        Assert.Equal(0, client.Receive(new byte[1]));
    }

    [Fact]
    public async Task A_socket_that_was_never_started_can_be_used_and_closed()
    {
        var accepted = new TaskCompletionSource<StreamSocket>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var listener = await _group.ListenAsync(Server.Loopback, accepted.SetResult);
        using var client = Server.Dial(listener.LocalEndPoint);
        var socket = await accepted.Task.Within();

        Assert.Equal(1, socket.Send([1]).Count);
        Assert.Equal([1], ReceiveExactly(client, 1));
        socket.Close();

        Assert.Equal(0, client.Receive(new byte[1]));
        Waiting.Until(() => _group.ConnectionCount == 0);
    }

    private static void WaitFor(RecordingHandler handler, ReadyEvents events) =>
        Waiting.Until(() => handler.Seen.HasFlag(events), $"{events}");

    private static byte[] ReceiveExactly(Socket socket, int count)
    {
        var buffer = new byte[count];
        for (var received = 0; received < count;)
        {
            var n = socket.Receive(buffer, received, count - received, SocketFlags.None);
            Assert.True(n > 0, "The connection ended early.");
            received += n;
        }

        return buffer;
    }

    private static byte[] Pattern(int length)
    {
        // Its period, a prime, is no divisor of any buffer's size, so that bytes at another place are other bytes.
        var bytes = new byte[length];
        for (var i = 0; i < length; i++)
        {
            bytes[i] = (byte)(i % 251);
        }

        return bytes;
    }
}
