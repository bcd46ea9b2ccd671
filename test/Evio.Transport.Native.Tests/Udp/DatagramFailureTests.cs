using System.Buffers;
using System.Net;
using System.Net.Sockets;
using static Evio.Transport.Native.Tests.Udp.UdpServers;

namespace Evio.Transport.Native.Tests.Udp;

/// <summary>Callbacks that fail, and the end of the server.</summary>
public class DatagramFailureTests
{
    public static TheoryData<string> Schemes => UdpServers.Schemes;

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task AnExceptionCostsOneReplyAndIsToldToDatagramFailed(string scheme)
    {
        var failures = new System.Collections.Concurrent.ConcurrentQueue<(System.Net.EndPoint? Sender, Exception Exception)>();
        await using var server = await StartAsync(scheme, new Events
        {
            Data = static (connection, input) =>
            {
                Echo(connection, input);
                return input.SequenceEqual("data"u8) ? throw new InvalidTimeZoneException() : EvioAction.None;
            },
            PreWrite = static connection =>
            {
                if (connection.PendingOutput == "pre-write".Length)
                {
                    throw new InvalidTimeZoneException();
                }
            },
            DatagramFailed = (connection, exception) => failures.Enqueue((connection.RemoteEndPoint, exception)),
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        peer.Send("data");
        peer.Send("pre-write");

        Assert.Equal("fine", await peer.AskAsync("fine"));
        Assert.False(server.Completion.IsCompleted);
        Assert.Equal(2, failures.Count);
        Assert.All(failures, static failure =>
        {
            Assert.NotNull(failure.Sender);
            Assert.IsType<InvalidTimeZoneException>(failure.Exception);
        });
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task WhatDatagramFailedThrowsCostsTheReplyAndNothingElse(string scheme)
    {
        await using var server = await StartAsync(scheme, new Events
        {
            Data = static (connection, input) =>
            {
                connection.Write(input);
                return input[0] == 'x' ? throw new InvalidTimeZoneException() : EvioAction.None;
            },
            DatagramFailed = static (_, _) => throw new NotFiniteNumberException(),
        });
        using var peer = new UdpPeer(server.Addresses[0]);
        for (var i = 0; i < 10; i++)
        {
            peer.Send("x");
            Assert.Equal("y"u8.ToArray(), await peer.AskAsync("y"u8));
        }

        Assert.False(server.Completion.IsCompleted);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ATooLargeReplyIsRefused(string scheme)
    {
        await using var server = await StartAsync(scheme, static (connection, input) =>
        {
            // Not caught: no reply.
            connection.Write(new byte[input.IsEmpty ? 65_508 : 65_507]);
            return EvioAction.None;
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        peer.Send("");

        Assert.Equal(65_507, (await peer.AskAsync("x"u8)).Length);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ATooLargeReplyMayBeCutByTheHandler(string scheme)
    {
        var outcome = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var server = await StartAsync(scheme, (connection, _) =>
        {
            try
            {
                var output = connection.Output;
                var refusal = Assert.Throws<InvalidOperationException>(() => output.Write(new byte[70_000]));
                Assert.Contains("65507", refusal.Message, StringComparison.Ordinal);
                Assert.Throws<InvalidOperationException>(() => output.GetSpan(70_000));
                Assert.Throws<InvalidOperationException>(() => output.GetMemory(70_000));
                Assert.Throws<ArgumentOutOfRangeException>(() => output.GetMemory(-1));
                Assert.Throws<ArgumentOutOfRangeException>(() => output.Advance(-1));
                Assert.Throws<ArgumentOutOfRangeException>(() => output.Advance(70_000));
                output.Write(new byte[65_500]);
                output.Write("1234567"u8);
                Assert.NotEqual(0, output.GetSpan().Length);
                Assert.Throws<InvalidOperationException>(() => output.Write("8"u8));
                Assert.Throws<InvalidOperationException>(() => output.Advance(1));
                Assert.Equal(65_507, connection.PendingOutput);
                outcome.SetResult();
            }
            catch (Exception exception)
            {
                outcome.SetException(exception);
            }

            return EvioAction.None;
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        peer.Send("?");

        await outcome.Task.WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);
        var reply = await peer.ReceiveAsync();
        Assert.Equal(65_507, reply.Length);
        Assert.Equal("1234567"u8, reply.AsSpan(65_500));
    }

    /// <summary>Another thread could give a reply bytes that were in its memory before, which are others'.</summary>
    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task AReplyIsWrittenOnTheLoopAlone(string scheme)
    {
        var refusals = new List<Exception?>();
        await using var server = await StartAsync(scheme, (connection, input) =>
        {
            connection.Write("before "u8);
            var output = connection.Output;
            var other = new Thread(() =>
            {
                refusals.Add(Record.Exception(() => output.Advance(1)));
                refusals.Add(Record.Exception(() => { _ = output.GetMemory(); }));
                refusals.Add(Record.Exception(() => connection.Write("x"u8)));
            });
            other.Start();
            other.Join();
            return Echo(connection, input);
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal("before after", await peer.AskAsync("after"));
        Assert.Equal(3, refusals.Count);
        Assert.All(refusals, static refusal => Assert.IsType<InvalidOperationException>(refusal));
    }

    /// <summary>The end of the server comes from within a callback, while more datagrams of the same batch wait.</summary>
    [Theory]
    [InlineData("udp", LoopScheduling.Inline)]
    [InlineData("udp", LoopScheduling.Adaptive)]
    [InlineData("udp-net", LoopScheduling.Inline)]
    [InlineData("udp-net", LoopScheduling.Adaptive)]
    public async Task StoppedFromWithinACallbackTheServerEndsInOrder(string scheme, LoopScheduling scheduling)
    {
        const int Datagrams = 100;
        EvioServer? serving = null;
        UdpPeer? peer = null;
        Task? stopping = null;
        var server = await StartAsync(scheme, new Events
        {
            Scheduling = scheduling,
            Serving = server =>
            {
                serving = server;
                peer = new UdpPeer(server.Addresses[0]);
                for (var i = 0; i < Datagrams; i++)
                {
                    peer.Send([(byte)i]);
                }

                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                stopping ??= serving!.StopAsync();
                return Echo(connection, input);
            },
        });
        using (peer)
        {
            Assert.Equal([0], await peer!.ReceiveAsync());
        }

        await server.Completion.WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);
        Assert.Same(server.Completion, stopping);
    }

    [Theory]
    [InlineData("udp", 1)]
    [InlineData("udp", 3)]
    [InlineData("udp-net", 1)]
    [InlineData("udp-net", 3)]
    public async Task ShutdownEndsTheServerAfterTheReply(string scheme, int loops)
    {
        var server = await StartAsync(scheme, new Events
        {
            NumLoops = loops,
            Data = static (connection, input) =>
            {
                Echo(connection, input);
                return EvioAction.Shutdown;
            },
        });
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal("bye", await peer.AskAsync("bye"));
        await server.Completion.WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);
    }

    [Theory]
    [InlineData("udp", 1)]
    [InlineData("udp", 3)]
    [InlineData("udp-net", 1)]
    public async Task TheEndClosesAllDescriptors(string scheme, int loops)
    {
        var server = await StartAsync(scheme, new Events { NumLoops = loops, Data = Echo });
        using (var peer = new UdpPeer(server.Addresses[0]))
        {
            Assert.Equal("hello", await peer.AskAsync("hello"));
        }

        var sockets = SocketsOn(server.Port());
        Assert.Equal(loops, sockets.Count);

        await server.StopAsync().WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);

        // By inode: somebody else may have the port by now.
        Assert.Empty(SocketsOn(server.Port()).Intersect(sockets));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task AStartThatFailsLeavesNoDescriptor(string scheme)
    {
        var port = 0;
        List<string> sockets = [];

        await Assert.ThrowsAsync<InvalidTimeZoneException>(() => StartAsync(scheme, new Events
        {
            Serving = server =>
            {
                port = server.Port();
                sockets = SocketsOn(port);
                throw new InvalidTimeZoneException();
            },
        }));

        Assert.NotEmpty(sockets);
        Assert.Empty(SocketsOn(port).Intersect(sockets));
    }

    [Theory]
    [InlineData("udp", 1)]
    [InlineData("udp", 2)]
    [InlineData("udp-net", 1)]
    public async Task TheEndComesUnderLoadToo(string scheme, int loops)
    {
        var count = 0;
        var busy = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var server = await StartAsync(scheme, new Events
        {
            NumLoops = loops,
            Data = (connection, input) =>
            {
                if (Interlocked.Increment(ref count) == 1000)
                {
                    busy.SetResult();
                }

                return Echo(connection, input);
            },
        });
        using var end = new CancellationTokenSource();
        var senders = Enumerable.Range(0, 4).Select(_ => Task.Run(() => Flood(server.Addresses[0], end.Token), CancellationToken.None)).ToArray();
        await busy.Task.WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);

        await server.StopAsync().WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);

        var atTheEnd = Volatile.Read(ref count);
        await end.CancelAsync();
        await Task.WhenAll(senders).WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);
        Assert.Equal(atTheEnd, Volatile.Read(ref count));
    }

    private static void Flood(EndPoint server, CancellationToken end)
    {
        using var peer = new Socket(server.AddressFamily, SocketType.Dgram, ProtocolType.Udp);
        while (!end.IsCancellationRequested)
        {
            peer.SendTo("flood"u8, server);
        }
    }

    /// <summary>The inodes of the UDP sockets that are bound to a port of the IPv4 loopback address (proc_pid_net(5)).</summary>
    private static List<string> SocketsOn(int port) =>
    [
        .. File.ReadLines("/proc/self/net/udp")
            .Skip(1)
            .Select(static line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Where(fields => fields[1] == $"0100007F:{port:X4}")
            .Select(static fields => fields[9]),
    ];
}
