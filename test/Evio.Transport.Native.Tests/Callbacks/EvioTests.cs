using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>What evio's own tests establish.</summary>
public sealed class EvioTests
{
    private const int ClientCount = 10;

    public static TheoryData<string> Schemes => Site.Schemes;

    public static TheoryData<string, int, LoadBalance> ServeCases
    {
        get
        {
            var cases = new TheoryData<string, int, LoadBalance>();
            foreach (string scheme in Site.Schemes)
            {
                cases.Add(scheme, 1, LoadBalance.Random);
                cases.Add(scheme, 5, LoadBalance.LeastConnections);
                cases.Add(scheme, -1, LoadBalance.RoundRobin);
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(ServeCases))]
    public async Task Serve_EchoesToManyClientsAndReturns(string scheme, int loops, LoadBalance balance)
    {
        await using var site = new Site(scheme);
        var seed = Payload.NewSeed();
        var greeting = Encoding.ASCII.GetBytes("sweetness\r\n");
        var opened = 0;
        var closed = 0;
        var loopsSeen = 0;
        EvioServer? serving = null;
        var clients = new ConcurrentBag<Task>();
        var events = new Events
        {
            NumLoops = loops,
            LoadBalance = balance,
            Serving = server =>
            {
                loopsSeen = server.NumLoops;
                serving = server;
                return EvioAction.None;
            },
            Opened = (connection, ref options) =>
            {
                Interlocked.Increment(ref opened);
                connection.Write(greeting);
                connection.Context = connection;
                options.TcpKeepAlive = TimeSpan.FromMinutes(5);
                Assert.NotNull(connection.LocalEndPoint);
                Assert.NotNull(connection.RemoteEndPoint);
                return EvioAction.None;
            },
            Data = static (connection, input) =>
            {
                connection.Write(input);
                return EvioAction.None;
            },
            Closed = (connection, error) =>
            {
                Assert.Null(error);
                Assert.Same(connection, connection.Context);
                return Interlocked.Increment(ref closed) == ClientCount ? EvioAction.Shutdown : EvioAction.None;
            },
            Tick = (out delay) =>
            {
                delay = TimeSpan.FromMilliseconds(200);
                for (var i = 0; i < ClientCount && clients.Count < ClientCount; i++)
                {
                    var clientSeed = seed + i;
                    clients.Add(Task.Run(() => RunClientAsync(clientSeed)));
                }

                return EvioAction.None;
            },
        };

        await site.ServeAsync(events).Within();

        await Task.WhenAll(clients);
        Assert.Equal(ClientCount, opened);
        Assert.Equal(ClientCount, closed);
        Assert.Equal(loops < 0 ? Environment.ProcessorCount : loops, loopsSeen);

        async Task RunClientAsync(int clientSeed)
        {
            var random = new Random(clientSeed);
            using var client = await site.ConnectAsync(serving!);
            Assert.Equal(greeting, await client.ReadAsync(greeting.Length));
            var duration = TimeSpan.FromMilliseconds(random.Next(125, 375));
            for (var start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start) < duration;)
            {
                var block = new byte[random.Next(1024 * 1024)];
                random.NextBytes(block);
                Payload.AssertSame(block, await client.EchoAsync(block));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Tick_ComesAfterItsDelay(string scheme)
    {
        await using var site = new Site(scheme);
        var ticks = 0;
        var events = new Events
        {
            Tick = (out delay) =>
            {
                delay = TimeSpan.FromMilliseconds(10);
                return ++ticks > 25 ? EvioAction.Shutdown : EvioAction.None;
            },
        };

        var start = Stopwatch.GetTimestamp();
        await site.ServeAsync(events).Within();

        Assert.True(Stopwatch.GetElapsedTime(start) >= TimeSpan.FromMilliseconds(250));
        Assert.Equal(26, ticks);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Ticks_AreLoop0sAndLeaveOutWhatALateOneMissed(string scheme)
    {
        const int Last = 12;
        await using var site = new Site(scheme);
        var delay = TimeSpan.FromMilliseconds(10);
        var ticks = 0;
        var firstEnded = 0L;
        EventLoop? loop = null;
        var events = new Events
        {
            NumLoops = 2,
            Serving = server =>
            {
                loop = server.Loops[0];
                return EvioAction.None;
            },
            Tick = (out next) =>
            {
                Assert.True(loop!.IsCurrent);
                next = delay;
                if (++ticks == 1)
                {
                    // So many are missed.
                    for (var start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start) < 2 * Last * delay;)
                    {
                        Thread.SpinWait(1000);
                    }

                    firstEnded = Stopwatch.GetTimestamp();
                }
                else
                {
                    // The second is due after the first one's end, and those that follow at least a delay apart.
                    Assert.True(Stopwatch.GetElapsedTime(firstEnded) >= (ticks - 2) * delay);
                }

                return ticks == Last ? EvioAction.Shutdown : EvioAction.None;
            },
        };

        await site.ServeAsync(events, LoopScheduling.Inline).Within();

        Assert.Equal(Last, ticks);
    }

    [Theory]
    [InlineData(0, 10, 1, 10)]
    [InlineData(0, 10, 0, 10)]
    [InlineData(100, 10, 95, 110)]
    [InlineData(0, 10, 9, 10)]
    [InlineData(0, 10, 10, 20)]
    [InlineData(0, 10, 11, 20)]
    [InlineData(3, 10, 2012, 2013)]
    [InlineData(3, 7, 2012, 2019)]
    public void Tick_IsDueAWholeNumberOfDelaysAfterTheLastOne(long due, int delay, long now, long expected)
    {
        var millisecond = Stopwatch.Frequency / 1000;

        Assert.Equal(expected * millisecond, ServerLoop.NextTick(due * millisecond, TimeSpan.FromMilliseconds(delay), now * millisecond));
    }

    [Fact]
    public void Tick_MayBeAsFarAwayAsATimeSpanReachesAndAsNear()
    {
        var now = Stopwatch.GetTimestamp();

        Assert.Equal(long.MaxValue, ServerLoop.NextTick(now, TimeSpan.MaxValue, now + 5));
        Assert.InRange(ServerLoop.NextTick(now, TimeSpan.FromTicks(1), now + 1_000_000), now + 1_000_001, now + 1_001_000);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Detach_SendsPendingOutputFirstAndGivesTheSocketAway(string scheme)
    {
        await using var site = new Site(scheme);
        var half = Payload.Random(Payload.NewSeed(), 10 * 1024);
        byte[] payload = [.. half, .. "--detached--"u8, .. half];
        var detached = new TaskCompletionSource<Task>(TaskCreationOptions.RunContinuationsAsynchronously);
        var closed = new Counter();
        var events = new Events
        {
            Opened = (connection, ref _) =>
            {
                connection.Context = new InputStream();
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                var stream = (InputStream)connection.Context!;
                var data = stream.Begin(input);
                if (data.Length < payload.Length)
                {
                    stream.End(data);
                    return EvioAction.None;
                }

                connection.Write(data);
                return EvioAction.Detach;
            },
            Detached = (connection, socket) =>
            {
                Assert.False(connection.Wake());
                detached.SetResult(Task.Run(() => EchoOnce(socket)));
                return EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
        };
        var server = await site.StartAsync(events);
        using var client = await site.ConnectAsync();

        Payload.AssertSame(payload, await client.EchoAsync(payload));
        var echo = await detached.Task.Within();
        Payload.AssertSame(payload, await client.EchoAsync(payload));
        Assert.Empty(await client.ReadToEndAsync());
        await echo.Within();

        Assert.Equal(0, server.Loops[0].ConnectionCount);
        await server.StopAsync().Within();
        Assert.Equal(0, closed.Value);

        void EchoOnce(Socket socket)
        {
            using (socket)
            {
                Assert.True(socket.Blocking);
                var buffer = new byte[payload.Length];
                for (var count = 0; count < buffer.Length;)
                {
                    var received = socket.Receive(buffer.AsSpan(count));
                    Assert.NotEqual(0, received);
                    count += received;
                }

                Assert.Equal(buffer.Length, socket.Send(buffer));
                socket.Shutdown(SocketShutdown.Send);
            }
        }
    }

    [Theory]
    [InlineData("tulip://howdy", "tulip")]
    [InlineData("howdy", "scheme")]
    [InlineData("tcp://127.0.0.1", "no port")]
    [InlineData("tcp-net://127.0.0.1:70000", "70000")]
    [InlineData("tcp4://[::1]:0", "address family")]
    [InlineData("tcp://:0?reuseport=2", "reuseport=2")]
    [InlineData("unix://", "no path")]
    [InlineData("unix-net://", "no path")]
    [InlineData("unix:///tmp/a\0b", "null character")]
    [InlineData("tcp://[[::1]]:0", "in brackets")]
    [InlineData("udp6://[[::1]:9]:0", "in brackets")]
    [InlineData("tcp6://[fe80::1%no-such]:0", "no interface 'no-such'")]
    [InlineData("udp://[fe80::1%4294967296]:0", "no interface '4294967296'")]
    public async Task BadAddress_IsRefusedWithTheReason(string address, string reason)
    {
        var exception = await Assert.ThrowsAsync<ArgumentException>(() => TestScheduling.StartAsync(new Events(), address));

        Assert.Contains($"'{address}'", exception.Message, StringComparison.Ordinal);
        Assert.Contains(reason, exception.Message.Replace(address, "", StringComparison.Ordinal), StringComparison.Ordinal);
    }

    [Fact]
    public Task LongHostName_IsRefusedWithTheReason() =>
        BadAddress_IsRefusedWithTheReason($"tcp://{string.Join('.', Enumerable.Repeat("name", 60))}:0", "too long");

    [Theory]
    [InlineData("tcp://")]
    [InlineData("tcp-net://")]
    public async Task EmptyAddress_IsAnyAddressAndAFreePort(string address)
    {
        await using var server = await TestScheduling.StartAsync(new Events(), address);

        var bound = Assert.IsType<IPEndPoint>(Assert.Single(server.Addresses));
        Assert.NotEqual(0, bound.Port);
        using var client = await Client.ConnectAsync(new IPEndPoint(IPAddress.Loopback, bound.Port));
    }

    [Fact]
    public void InputStream_PutsKeptBytesFirst()
    {
        var stream = new InputStream();

        Assert.Equal("HELLO"u8, stream.Begin("HELLO"u8));
        stream.End("LO"u8);
        Assert.Equal("LOWLY"u8, stream.Begin("WLY"u8));
        stream.End(default);
        Assert.Equal("PLAYER"u8, stream.Begin("PLAYER"u8));
    }

    [Fact]
    public void InputStream_KeepsTheEndOfItsOwnBuffer()
    {
        var stream = new InputStream();

        _ = stream.Begin("ab"u8);
        stream.End("ab"u8);
        stream.End(stream.Begin("cdef"u8)[3..]);

        Assert.Equal("defgh"u8, stream.Begin("gh"u8));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Input_IsValidDuringTheCallbackOnly(string scheme)
    {
        await using var site = new Site(scheme);
        byte[]? copy = null;
        var address = nint.Zero;
        var called = new Counter();
        var events = new Events
        {
            Data = (_, input) =>
            {
                // The loops' buffers are pinned.
                var here = AddressOf(input);
                if (copy is null)
                {
                    copy = input.ToArray();
                    address = here;
                }
                else
                {
                    Assert.Equal("first."u8, copy);
                    Assert.Equal(address, here);
                }

                called.Add();
                return EvioAction.None;
            },
            Closed = static (_, error) =>
            {
                Assert.Null(error);
                return EvioAction.None;
            },
        };
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();

        await client.WriteAsync("first.");
        await called.ReachesAsync(1);
        await client.WriteAsync("second");
        await called.ReachesAsync(2);
        await site.Server!.StopAsync().Within();

        static unsafe nint AddressOf(ReadOnlySpan<byte> span)
        {
            fixed (byte* start = span)
            {
                return (nint)start;
            }
        }
    }

    [Theory]
    [InlineData("tcp", "1")]
    [InlineData("tcp", "true")]
    [InlineData("tcp-net", "1")]
    [InlineData("tcp-net", "true")]
    public async Task ReusePort_LetsSeveralServersShareIt(string scheme, string value)
    {
        await using var first = await TestScheduling.StartAsync(EchoEvents(), $"{scheme}://127.0.0.1:0?reuseport={value}");
        var port = ((IPEndPoint)first.Addresses[0]).Port;

        var others = await Task.WhenAll(Enumerable.Range(0, 4).Select(
            _ => TestScheduling.StartAsync(EchoEvents(), $"{scheme}://127.0.0.1:{port}?reuseport={value}"))).Within();
        using (var client = await Client.ConnectAsync(first.Addresses[0]))
        {
            await client.ExpectEchoAsync("x");
        }

        await Task.WhenAll(others.Append(first).Select(static server => server.StopAsync())).Within();
    }

    [Theory]
    [InlineData("tcp", false)]
    [InlineData("tcp", true)]
    [InlineData("tcp-net", false)]
    [InlineData("tcp-net", true)]
    public async Task BusyPort_IsRefusedByName(string scheme, bool shared)
    {
        await using var first = await TestScheduling.StartAsync(new Events(), $"{scheme}://127.0.0.1:0{(shared ? "?reuseport=1" : "")}");
        var port = ((IPEndPoint)first.Addresses[0]).Port;

        foreach (var second in new[] { "tcp", "tcp-net" })
        {
            var exception = await Assert.ThrowsAsync<SocketException>(() => TestScheduling.StartAsync(new Events(), $"{second}://127.0.0.1:{port}"));

            Assert.Equal(SocketError.AddressAlreadyInUse, exception.SocketErrorCode);
            Assert.Contains($"127.0.0.1:{port}", exception.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("tcp")]
    [InlineData("tcp-net")]
    public async Task ForeignAddress_IsRefusedByName(string scheme)
    {
        var exception = await Assert.ThrowsAsync<SocketException>(() => TestScheduling.StartAsync(new Events(), $"{scheme}://192.0.2.1:0"));

        Assert.Equal(SocketError.AddressNotAvailable, exception.SocketErrorCode);
        Assert.Contains("192.0.2.1:0", exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("tcp", AddressFamily.InterNetwork)]
    [InlineData("tcp", AddressFamily.InterNetworkV6)]
    [InlineData("tcp-net", AddressFamily.InterNetwork)]
    [InlineData("tcp-net", AddressFamily.InterNetworkV6)]
    public async Task PortOfAServerThatJustEnded_IsFree(string scheme, AddressFamily family)
    {
        var loopback = family == AddressFamily.InterNetwork ? "127.0.0.1" : "[::1]";
        EvioServer ended;
        await using (ended = await TestScheduling.StartAsync(new Events { Opened = static (_, ref _) => EvioAction.Close }, $"{scheme}://{loopback}:0"))
        {
            // The server closes first, and so its side of the connection waits for stray segments (TIME_WAIT).
            using var client = await Client.ConnectAsync(ended.Addresses[0]);
            Assert.Empty(await client.ReadToEndAsync());
        }

        await using var next = await TestScheduling.StartAsync(new Events(), $"{scheme}://{ended.Addresses[0]}");
    }

    [Theory]
    [InlineData("tcp")]
    [InlineData("tcp-net")]
    public async Task SchemeWithoutFamily_TakesBoth(string scheme)
    {
        await using var both = await TestScheduling.StartAsync(EchoEvents(), $"{scheme}://:0");
        await using var six = await TestScheduling.StartAsync(EchoEvents(), $"{scheme.Replace("tcp", "tcp6", StringComparison.Ordinal)}://:0");

        foreach (var address in new[] { IPAddress.Loopback, IPAddress.IPv6Loopback })
        {
            using var client = await Client.ConnectAsync(new IPEndPoint(address, ((IPEndPoint)both.Addresses[0]).Port));
            await client.ExpectEchoAsync("x");
        }

        var refused = await Assert.ThrowsAsync<SocketException>(
            () => Client.ConnectAsync(new IPEndPoint(IPAddress.Loopback, ((IPEndPoint)six.Addresses[0]).Port)));
        Assert.Equal(SocketError.ConnectionRefused, refused.SocketErrorCode);
    }

    [Theory]
    [InlineData("tcp")]
    [InlineData("tcp-net")]
    public async Task BadOptions_AreRefusedByName(string scheme)
    {
        await AssertRefusedAsync(new Events { NumLoops = -2 }, "LoopCount is -2");
        await AssertRefusedAsync(new Events { LoadBalance = (LoadBalance)3 }, "LoadBalance is 3");
        await AssertRefusedAsync(new Events { CloseTimeout = TimeSpan.FromSeconds(-1) }, "CloseTimeout is -00:00:01");
        foreach (var processor in new[] { -1, 1023, 1024, 100_000_000 })
        {
            await AssertRefusedAsync(new Events { NumLoops = 2, LoopAffinity = [0, processor] }, $"processor {processor}");
        }

        await using var server = await TestScheduling.StartAsync(new Events(), $"{scheme}://");
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => server.StopAsync(TimeSpan.FromTicks(-1)));

        async Task AssertRefusedAsync(Events events, string reason)
        {
            var exception = await Assert.ThrowsAsync<ArgumentException>(() => TestScheduling.StartAsync(events, $"{scheme}://"));
            Assert.Contains(reason, exception.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("tcp")]
    [InlineData("tcp-net")]
    public async Task LoopAffinity_BindsTheLoopsThreads(string scheme)
    {
        await using var free = await TestScheduling.StartAsync(new Events(), $"{scheme}://");
        var permitted = (await LoopThread.OfAsync(free.Loops[0])).Processors;
        var last = permitted[(permitted.LastIndexOfAny([',', '-']) + 1)..];

        await using var server = await TestScheduling.StartAsync(
            new Events { NumLoops = 2, LoopAffinity = [int.Parse(last, CultureInfo.InvariantCulture)] }, $"{scheme}://");

        foreach (var loop in server.Loops)
        {
            Assert.Equal(last, (await LoopThread.OfAsync(loop)).Processors);
        }
    }

    internal static Events EchoEvents() => new()
    {
        Data = static (connection, input) =>
        {
            connection.Write(input);
            return EvioAction.None;
        },
    };
}
