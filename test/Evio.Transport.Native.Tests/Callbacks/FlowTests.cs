using System.Net.Sockets;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Output that the peer does not take at once, half-closed connections, and bounds on how long anything is held.</summary>
public sealed class FlowTests
{
    public static TheoryData<string> Schemes => Site.Schemes;

    public static TheoryData<string> UnixSchemes => Site.UnixSchemes;

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task HalfClosedClient_GetsTheWholeReply(string scheme)
    {
        await using var site = new Site(scheme);
        var reply = Payload.Random(Payload.NewSeed(), 4 * 1024 * 1024);
        await site.StartAsync(new Events
        {
            Data = (connection, _) =>
            {
                connection.Write(reply);
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        await client.WriteAsync("x");
        client.ShutdownSend();

        Payload.AssertSame(reply, await client.ReadToEndAsync());
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task HalfClosedServer_SendsAllFirstAndGoesOnReceiving(string scheme)
    {
        await using var site = new Site(scheme);
        var output = Payload.Random(Payload.NewSeed(), 4 * 1024 * 1024);
        var received = new Counter();
        await site.StartAsync(new Events
        {
            Opened = (connection, ref _) =>
            {
                connection.Write(output);
                connection.ShutdownSend();
                return EvioAction.None;
            },
            Data = (_, input) =>
            {
                received.Add(input.Length);
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        Payload.AssertSame(output, await client.ReadToEndAsync());
        await client.WriteAsync(new byte[100_000]);
        await received.ReachesAsync(100_000);
    }

    /// <summary>The length of the output varies so that its end meets every state of the socket, a full one included.</summary>
    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task HalfClose_ComesWhateverIsPending(string scheme)
    {
        await using var site = new Site(scheme);
        var seed = Payload.NewSeed();
        var output = Payload.Random(seed, 1024 * 1024);
        await site.StartAsync(new Events
        {
            Opened = (_, ref options) =>
            {
                options.SendBufferSize = 4096;
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                connection.Write(output.AsSpan(0, BitConverter.ToInt32(input)));
                connection.ShutdownSend();
                return EvioAction.None;
            },
        });

        var random = new Random(seed);
        for (var i = 0; i < 50; i++)
        {
            using var client = await site.ConnectAsync();
            var length = i < 25 ? random.Next(20_000) : random.Next(output.Length);
            await client.WriteAsync(BitConverter.GetBytes(length));
            Payload.AssertSame(output.AsMemory(0, length), await client.ReadToEndAsync());
        }
    }

    /// <summary>
    /// Single bytes until one is held back, in whichever place: the queue, or the channel that has accepted it. Unix-domain sockets are full after few.
    /// </summary>
    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task HalfClose_ComesAfterAByteThatWasHeldBack(string scheme)
    {
        await using var site = new Site(scheme);
        var opened = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        var halfClosed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var woken = new Counter();
        await site.StartAsync(new Events
        {
            Opened = (connection, ref options) =>
            {
                options.SendBufferSize = 4096;
                opened.SetResult(connection);
                return EvioAction.None;
            },
            Data = (connection, _) =>
            {
                if (connection.PendingOutput == 1)
                {
                    connection.ShutdownSend();
                    halfClosed.TrySetResult();
                }

                woken.Add();
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        var sends = new List<Task>();
        while (!halfClosed.Task.IsCompleted)
        {
            sends.Add(connection.SendAsync(new byte[1]));
            Assert.True(connection.Wake());
            await woken.ReachesAsync(sends.Count);
        }

        Assert.Equal(sends.Count, (await client.ReadToEndAsync()).Length);
        await Task.WhenAll(sends).Within();
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Marks_BoundTheMemoryOfAPeerThatDoesNotRead(string scheme)
    {
        const int HighWaterMark = 256 * 1024;
        await using var site = new Site(scheme);
        var payload = Payload.Random(Payload.NewSeed(), 16 * 1024 * 1024);
        var most = 0L;
        var reading = new Counter();
        await site.StartAsync(new Events
        {
            Opened = (_, ref options) =>
            {
                options.HighWaterMark = HighWaterMark;
                options.LowWaterMark = HighWaterMark / 4;
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                Assert.InRange(connection.PendingOutput, 0, HighWaterMark - 1);
                connection.Write(input);
                most = Math.Max(most, connection.PendingOutput);
                if (connection.PendingOutput >= HighWaterMark)
                {
                    reading.Add();
                }

                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        var write = client.WriteAsync(payload);
        await reading.ReachesAsync(1);
        Assert.False(write.IsCompleted);
        Payload.AssertSame(payload, await client.ReadAsync(payload.Length));
        await write;

        await site.Server!.StopAsync().Within();
        Assert.InRange(most, HighWaterMark, HighWaterMark + (64 * 1024) - 1);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task LargeMessages_AtDepth_EchoExactlyWhenTheClientsPause(string scheme)
    {
        const int Depth = 4;
        await using var site = new Site(scheme);
        var message = Payload.Random(Payload.NewSeed(), 1024 * 1024);
        await site.StartAsync(EvioTests.EchoEvents());

        await Task.WhenAll(Enumerable.Range(0, 10).Select(async _ =>
        {
            using var client = await site.ConnectAsync();
            var writes = Enumerable.Range(0, Depth).Aggregate(
                Task.CompletedTask, (before, _) => before.ContinueWith(_ => client.WriteAsync(message), TaskScheduler.Default).Unwrap());
            for (var i = 0; i < Depth; i++)
            {
                Payload.AssertSame(message, await client.ReadAsync(message.Length));
            }

            await writes;
        }));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Input_WhileOutputIsPending_IsNeitherLostNorSpunOn(string scheme)
    {
        const int Inputs = 100;
        await using var site = new Site(scheme);
        var output = Payload.Random(Payload.NewSeed(), 16 * 1024 * 1024);
        var received = new Counter();
        var server = await site.StartAsync(new Events
        {
            Opened = (connection, ref options) =>
            {
                options.HighWaterMark = int.MaxValue;
                connection.Write(output);
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                Assert.NotEqual(0, connection.PendingOutput);
                connection.Write(input);
                received.Add(input.Length);
                return EvioAction.None;
            },
        });
        var thread = await LoopThread.OfAsync(server.Loops[0]);
        using var client = await site.ConnectAsync();

        var input = Enumerable.Range(0, Inputs).Select(static i => (byte)i).ToArray();
        foreach (var one in input)
        {
            await client.WriteAsync(new[] { one });
        }

        await received.ReachesAsync(Inputs);
        await thread.AssertIdleAsync();

        Payload.AssertSame(output, await client.ReadAsync(output.Length));
        Assert.Equal(input, await client.ReadAsync(Inputs));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task PeerThatNeverReads_IsCutOff(string scheme)
    {
        await using var site = new Site(scheme);
        var closed = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await site.StartAsync(new Events
        {
            CloseTimeout = TimeSpan.FromMilliseconds(50),
            Data = static (connection, input) =>
            {
                connection.Write(new byte[16 * 1024 * 1024]);
                return EvioAction.Close;
            },
            Closed = (_, error) =>
            {
                closed.SetResult(error);
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();
        await client.WriteAsync("x");

        Assert.IsType<TimeoutException>(await closed.Task.Within());
        await client.WaitForEndAsync();
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task PeerThatNeverReads_DoesNotHoldTheStop(string scheme)
    {
        await using var site = new Site(scheme);
        var opened = new Counter();
        var closed = new Counter();
        var server = await site.StartAsync(new Events
        {
            CloseTimeout = Site.Limit * 2,
            Opened = (connection, ref _) =>
            {
                connection.Write(new byte[16 * 1024 * 1024]);
                opened.Add();
                return EvioAction.None;
            },
            Closed = (_, error) =>
            {
                Assert.IsType<TimeoutException>(error);
                closed.Add();
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();
        await opened.ReachesAsync(1);

        await server.StopAsync(TimeSpan.FromMilliseconds(20)).Within();

        Assert.Equal(1, closed.Value);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task IdleConnection_IsClosed(string scheme)
    {
        await using var site = new Site(scheme);
        var closed = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await site.StartAsync(new Events
        {
            Opened = static (_, ref options) =>
            {
                options.IdleTimeout = TimeSpan.FromMilliseconds(50);
                return EvioAction.None;
            },
            Closed = (_, error) =>
            {
                closed.SetResult(error);
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        Assert.Empty(await client.ReadToEndAsync());
        Assert.IsType<TimeoutException>(await closed.Task.Within());
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task WriteFromAnothersCallback_IsSent(string scheme)
    {
        await using var site = new Site(scheme);
        var connections = new List<Connection>();
        var opened = new Counter();
        await site.StartAsync(new Events
        {
            Opened = (connection, ref _) =>
            {
                connections.Add(connection);
                opened.Add();
                return EvioAction.None;
            },
            Data = (_, input) =>
            {
                foreach (var connection in connections)
                {
                    connection.Write(input);
                }

                return EvioAction.None;
            },
        });
        using var first = await site.ConnectAsync();
        using var second = await site.ConnectAsync();
        await opened.ReachesAsync(2);

        await first.WriteAsync("to all");

        await first.ExpectAsync("to all");
        await second.ExpectAsync("to all");
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task NestedClose_LeavesTheInputOfTheCallbackAlone(string scheme)
    {
        await using var site = new Site(scheme);
        var opened = new Counter();
        var other = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        using var fill = new ManualResetEventSlim();
        await site.StartAsync(new Events
        {
            Opened = (connection, ref _) =>
            {
                other.TrySetResult(connection);
                opened.Add();
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                // The loop stands still until the other connection has unread input; its close drains it.
                Assert.True(fill.Wait(Site.Limit));
                other.Task.Result.Close();
                connection.Write(input);
                return EvioAction.None;
            },
        });
        using var victim = await site.ConnectAsync();
        await opened.ReachesAsync(1);
        using var client = await site.ConnectAsync();
        await opened.ReachesAsync(2);

        var echo = client.ExpectEchoAsync("mine");
        await victim.WriteAsync("others");
        fill.Set();

        await echo;
    }

    [Theory]
    [InlineData("tcp")]
    [InlineData("tcp-net")]
    public async Task Options_AreSetAndRoundedUp(string scheme)
    {
        await using var site = new Site(scheme);
        var detached = new TaskCompletionSource<Socket>(TaskCreationOptions.RunContinuationsAsynchronously);
        await site.StartAsync(new Events
        {
            Opened = static (_, ref options) =>
            {
                options.TcpKeepAlive = TimeSpan.FromMilliseconds(300_001);
                options.TcpKeepAliveInterval = TimeSpan.FromMilliseconds(1);
                options.TcpKeepAliveCount = 7;
                return EvioAction.Detach;
            },
            Detached = (_, socket) =>
            {
                detached.SetResult(socket);
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        using var socket = await detached.Task.Within();
        Assert.NotEqual(0, (int)socket.GetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive)!);
        Assert.Equal(301, socket.GetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime));
        Assert.Equal(1, socket.GetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval));
        Assert.Equal(7, socket.GetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount));
        Assert.True(socket.NoDelay);
    }
}
