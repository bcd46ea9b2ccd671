using System.Buffers.Binary;
using System.Net;
using System.Text;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Sockets;
using Evio.Transport.Native.Tests.Support;
using static Evio.Transport.Native.Tests.Udp.UdpServers;

namespace Evio.Transport.Native.Tests.Udp;

/// <summary>Datagrams in, replies out.</summary>
public class DatagramTests
{
    public static TheoryData<string> Schemes => UdpServers.Schemes;

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task EachSenderIsSeenUnderItsAddress(string scheme)
    {
        await using var server = await StartAsync(scheme, static (connection, _) =>
        {
            Assert.Same(connection.RemoteEndPoint, connection.RemoteEndPoint);
            connection.Write($"{connection.RemoteEndPoint} at {connection.LocalEndPoint}, address {connection.AddressIndex}");
            return EvioAction.None;
        });
        using var first = new UdpPeer(server.Addresses[0]);
        using var second = new UdpPeer(server.Addresses[0]);

        for (var i = 0; i < 3; i++)
        {
            Assert.Equal($"{first.EndPoint} at {server.Addresses[0]}, address 0", await first.AskAsync("?"));
            Assert.Equal($"{second.EndPoint} at {server.Addresses[0]}, address 0", await second.AskAsync("?"));
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task AnEmptyDatagramIsDelivered(string scheme)
    {
        await using var server = await StartAsync(scheme, static (connection, input) =>
        {
            connection.Write($"{input.Length} bytes from {connection.RemoteEndPoint}");
            return EvioAction.None;
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal($"0 bytes from {peer.EndPoint}", await peer.AskAsync(""));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task WithoutOutputThereIsNoReply(string scheme)
    {
        await using var server = await StartAsync(scheme, static (connection, input) =>
            input.SequenceEqual("silence"u8) ? EvioAction.None : Echo(connection, input));
        using var peer = new UdpPeer(server.Addresses[0]);

        peer.Send("silence");

        Assert.Equal("words", await peer.AskAsync("words"));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task AllThatACallbackWritesIsOneDatagram(string scheme)
    {
        await using var server = await StartAsync(scheme, static (connection, input) =>
        {
            connection.Write("a");
            connection.Write(default(ReadOnlySpan<byte>));
            var memory = connection.Output.GetMemory(100);
            Assert.True(memory.Length >= 100);
            memory.Span[0] = (byte)'b';
            connection.Output.Advance(1);
            connection.Write(input);
            Assert.Equal(2 + input.Length, connection.PendingOutput);
            return EvioAction.None;
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal("abc", await peer.AskAsync("c"));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ABurstIsAnsweredInFull(string scheme)
    {
        // A window is far below what the sockets' buffers hold, so that nothing may be missing.
        const int Datagrams = 1000;
        const int Window = 50;
        await using var server = await StartAsync(scheme, Echo);
        using var peer = new UdpPeer(server.Addresses[0]);
        var answered = new HashSet<int>();
        var datagram = new byte[64];

        for (var sent = 0; sent < Datagrams;)
        {
            for (var i = 0; i < Window; i++)
            {
                BinaryPrimitives.WriteInt32LittleEndian(datagram, sent++);
                peer.Send(datagram);
            }

            while (answered.Count < sent)
            {
                var reply = await peer.ReceiveAsync();
                Assert.Equal(datagram.Length, reply.Length);
                Assert.True(answered.Add(BinaryPrimitives.ReadInt32LittleEndian(reply)));
            }
        }

        Assert.Equal(Enumerable.Range(0, Datagrams), answered.Order());
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task TheLargestDatagramIsEchoed(string scheme)
    {
        await using var server = await StartAsync(scheme, Echo);
        using var peer = new UdpPeer(server.Addresses[0]);
        var datagram = new byte[65_507];
        new Random(1).NextBytes(datagram);

        Assert.Equal(datagram, await peer.AskAsync(datagram));
    }

    [Theory]
    [InlineData("udp6")]
    [InlineData("udp6-net")]
    public async Task TheLargestDatagramOfIPv6IsNotCutShort(string scheme)
    {
        var datagram = new byte[65_527];
        new Random(1).NextBytes(datagram);
        await using var server = await TestScheduling.StartAsync(
            new Events
            {
                Data = (connection, input) =>
                {
                    connection.Write(input.SequenceEqual(datagram) ? "complete" : $"{input.Length} bytes");
                    return EvioAction.None;
                },
            },
            $"{scheme}://[::1]:0");
        using var peer = new UdpPeer(server.Addresses[0]);
        peer.Send(datagram);

        Assert.Equal("complete", await peer.ReceiveTextAsync());
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task RepliesThatTogetherExceedTheirBufferAreAllSent(string scheme)
    {
        // They wait when receiving begins, and so come in one batch.
        const int Datagrams = 10;
        UdpPeer? peer = null;
        await using var server = await StartAsync(scheme, new Events
        {
            Serving = server =>
            {
                peer = new UdpPeer(server.Addresses[0]);
                for (var i = 0; i < Datagrams; i++)
                {
                    peer.Send([(byte)i]);
                }

                return EvioAction.None;
            },
            Data = static (connection, input) =>
            {
                connection.Output.GetSpan(60_000)[..60_000].Fill(input[0]);
                connection.Output.Advance(60_000);
                return EvioAction.None;
            },
        });
        using (peer)
        {
            for (var i = 0; i < Datagrams; i++)
            {
                var reply = await peer!.ReceiveAsync();
                Assert.Equal(60_000, reply.Length);
                Assert.Equal(-1, reply.AsSpan().IndexOfAnyExcept((byte)i));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task PreWriteComesOncePerReplyAndMayAddToIt(string scheme)
    {
        await using var server = await StartAsync(scheme, new Events
        {
            Data = static (connection, input) => input.IsEmpty ? EvioAction.None : Echo(connection, input),
            PreWrite = static connection =>
            {
                connection.Context = (int)(connection.Context ?? 0) + 1;
                connection.Write($" (reply {connection.Context} to {connection.RemoteEndPoint})");
            },
        });
        using var first = new UdpPeer(server.Addresses[0]);
        using var second = new UdpPeer(server.Addresses[0]);

        Assert.Equal($"a (reply 1 to {first.EndPoint})", await first.AskAsync("a"));
        first.Send("");

        // The context is the socket's, not the sender's.
        Assert.Equal($"b (reply 2 to {second.EndPoint})", await second.AskAsync("b"));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task TheSocketCountsItsBytes(string scheme)
    {
        await using var server = await StartAsync(scheme, static (connection, _) =>
        {
            connection.Write($"{connection.BytesReceived}/{connection.BytesSent}");
            return EvioAction.None;
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal("4/0", await peer.AskAsync("1234"));
        Assert.Equal("9/3", await peer.AskAsync("56789"));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task WhatIsNotForDatagramsSaysSo(string scheme)
    {
        var kept = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var server = await StartAsync(scheme, (connection, input) =>
        {
            Assert.False(connection.Wake());
            Assert.Throws<NotSupportedException>(() => { _ = connection.SendAsync(default); });
            connection.Close();
            connection.ShutdownSend();
            Assert.True(connection.Loop.IsCurrent);
            kept.TrySetResult(connection);
            Echo(connection, input);
            return input[0] == 'c' ? EvioAction.Close : EvioAction.Detach;
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal("close", await peer.AskAsync("close"));
        Assert.Equal("detach", await peer.AskAsync("detach"));
        var connection = await kept.Task;
        Assert.False(connection.Wake());
        Assert.Throws<InvalidOperationException>(() => connection.Write("late"));
        Assert.Throws<InvalidOperationException>(() => connection.Output.GetMemory());
        Assert.Throws<ArgumentOutOfRangeException>(() => connection.Output.Advance(1));
        var refusal = Assert.Throws<NotSupportedException>(() => { _ = connection.SendAsync(new byte[1]); });
        Assert.Contains("UDP", refusal.Message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task WithoutDataDatagramsAreTakenAndForgotten(string scheme)
    {
        await using var server = await StartAsync(scheme, new Events());
        using var peer = new UdpPeer(server.Addresses[0]);

        peer.Send("nobody listens");

        await server.StopAsync().WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task SteadyStateAllocatesNothing(string scheme)
    {
        const int WarmUp = 500;
        const int Measured = 1000;
        long before = 0;
        long after = 0;
        var count = 0;
        await using var server = await StartAsync(scheme, new Events
        {
            PreWrite = static _ => { },
            Data = (connection, input) =>
            {
                switch (++count)
                {
                    case WarmUp:
                        before = GC.GetAllocatedBytesForCurrentThread();
                        break;
                    case WarmUp + Measured:
                        after = GC.GetAllocatedBytesForCurrentThread();
                        break;
                }

                return Echo(connection, input);
            },
        });
        using var peer = new UdpPeer(server.Addresses[0]);
        for (var i = 0; i < WarmUp + Measured; i++)
        {
            await peer.AskAsync("message"u8);
        }

        // All that the loop's thread allocates: receiving, delivering and replying included.
        Assert.InRange(after - before, 0, Measured - 1);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task InputIsValidDuringTheCallbackOnly(string scheme)
    {
        // What is kept must be copied; the copy stays what it was.
        byte[]? copy = null;
        await using var server = await StartAsync(scheme, (connection, input) =>
        {
            connection.Write(copy is null ? "first" : Encoding.UTF8.GetString(copy));
            copy = input.ToArray();
            return EvioAction.None;
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal("first", await peer.AskAsync("one"));
        Assert.Equal("one", await peer.AskAsync("two"));
        Assert.Equal("two", await peer.AskAsync("three"));
    }

    [Fact]
    public async Task WhatWaitsIsReceivedInBatches()
    {
        const int Datagrams = 100;
        var serving = true;
        UdpPeer? peer = null;
        DatagramSocket? socket = null;
        await using var server = await StartAsync("udp", new Events
        {
            Serving = server =>
            {
                peer = new UdpPeer(server.Addresses[0]);
                for (var i = 0; i < Datagrams; i++)
                {
                    peer.Send([(byte)i]);
                }

                serving = false;
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                Assert.False(serving);
                socket = (DatagramSocket)((DatagramConnection)connection).Channel;
                return Echo(connection, input);
            },
        });
        using (peer)
        {
            for (var i = 0; i < Datagrams; i++)
            {
                Assert.Equal([(byte)i], await peer!.ReceiveAsync());
            }

            var receives = await Support.Waiting.OnLoopAsync(server.Loops[0], () => socket!.Receives);
            Assert.Equal((Datagrams + DatagramBatch.Capacity - 1) / DatagramBatch.Capacity, receives);
        }
    }

    [Fact]
    public async Task AReplyThatTheKernelRefusesCostsNoOtherReply()
    {
        await using var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
        var loop = group.Loops[0];
        var descriptors = SocketDescriptors.BindPerLoop(
            new IPEndPoint(IPAddress.Loopback, 0), Platform.SOCK_DGRAM, 1, dualMode: false, sharePort: false, onBound: null, out var bound);
        var socket = new DatagramSocket(loop, descriptors[0], bound);
        using var peer = new UdpPeer(bound);
        peer.Send("1");
        peer.Send("too large");
        peer.Send("3");

        loop.TryPost(_ => socket.Start(new LargeReplies()), null);

        Assert.Equal([1], await peer.ReceiveAsync());
        Assert.Equal([3], await peer.ReceiveAsync());
        Assert.Equal(1, await Support.Waiting.OnLoopAsync(loop, () => socket.DroppedReplies));
        Assert.Equal(2, socket.BytesSent);
        await socket.CloseAsync().WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);
    }

    private sealed class LargeReplies : IDatagramHandler
    {
        public int OnDatagram(ReadOnlySpan<byte> datagram, Memory<byte> reply)
        {
            reply.Span[0] = (byte)(datagram[0] - '0');

            // More than IPv4 can carry: EMSGSIZE.
            return datagram.Length > 1 ? 65_530 : 1;
        }
    }
}
