using System.Net.Sockets;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Output that the peer does not take at once, half-closed connections, and bounds on how long anything is held.</summary>
public sealed class FlowTests
{
    public static TheoryData<string> Schemes => Site.Schemes;

    public static TheoryData<string> UnixSchemes => Site.UnixSchemes;

    public static TheoryData<string, string> BadOptions
    {
        get
        {
            var cases = new TheoryData<string, string>();
            foreach (string scheme in Site.Schemes)
            {
                foreach (var option in typeof(ConnectionOptions).GetProperties())
                {
                    cases.Add(scheme, option.Name);
                }
            }

            return cases;
        }
    }

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

    /// <summary>Messages of 1 MiB, four at a time on each of ten connections, whose clients read nothing until the server has stopped reading too.</summary>
    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task LargeMessages_AtDepth_EchoExactlyInBoundedMemoryWhenTheClientsPause(string scheme)
    {
        const int Clients = 10;
        const int Depth = 4;
        const int MessageSize = 1024 * 1024;
        const int HighWaterMark = 256 * 1024;

        // Below the mark one more buffer of input is read.
        const int MostPending = HighWaterMark - 1 + ServerLoop.InputBufferSize;
        await using var site = new Site(scheme);
        var most = 0L;
        var stalled = new Counter();
        var server = await site.StartAsync(new Events
        {
            Opened = (_, ref options) =>
            {
                options.HighWaterMark = HighWaterMark;
                options.LowWaterMark = HighWaterMark / 4;
                options.SendBufferSize = 64 * 1024;
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                connection.Write(input);
                most = Math.Max(most, connection.PendingOutput);
                if (connection.PendingOutput >= HighWaterMark && connection.Context is null)
                {
                    connection.Context = stalled;
                    stalled.Add();
                }

                return EvioAction.None;
            },
        });
        var before = await AllocatedAsync();

        var seed = Payload.NewSeed();
        await Task.WhenAll(Enumerable.Range(seed, Clients).Select(async clientSeed =>
        {
            using var client = await site.ConnectAsync();
            client.Socket.ReceiveBufferSize = 64 * 1024;
            var messages = Payload.Random(clientSeed, Depth * MessageSize);
            var write = client.WriteAsync(messages);
            await stalled.ReachesAsync(Clients);
            Payload.AssertSame(messages, await client.ReadAsync(messages.Length));
            await write;
        }));

        Assert.InRange(most, HighWaterMark, MostPending);

        // All that the loop made for the 40 MiB: the blocks that the pending output of all filled at once, one that was begun for each, and small change.
        const int Blocks = Clients * ((MostPending / OutputBlocks.BlockSize) + 2);
        Assert.InRange(await AllocatedAsync() - before, 0, (Blocks * OutputBlocks.BlockSize) + (1024 * 1024));

        async Task<long> AllocatedAsync()
        {
            var allocated = new TaskCompletionSource<long>(TaskCreationOptions.RunContinuationsAsynchronously);
            Assert.True(server.Loops[0].TryPost(_ => allocated.SetResult(GC.GetAllocatedBytesForCurrentThread()), null));
            return await allocated.Task.Within();
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Input_WhileOutputIsPending_IsNeitherLostNorSpunOn(string scheme)
    {
        const int Inputs = 100;
        await using var site = new Site(scheme);
        var output = Payload.Random(Payload.NewSeed(), 16 * 1024 * 1024);
        var received = new Counter();
        await site.StartAsync(new Events
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
        using var client = await site.ConnectAsync();

        var input = Enumerable.Range(0, Inputs).Select(static i => (byte)i).ToArray();
        foreach (var one in input)
        {
            await client.WriteAsync(new[] { one });
        }

        await received.ReachesAsync(Inputs);
        LoopThread.AssertAllIdle();

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
    public async Task Stop_SendsPendingOutputFirst(string scheme)
    {
        await using var site = new Site(scheme);
        var output = Payload.Random(Payload.NewSeed(), 16 * 1024 * 1024);
        var opened = new Counter();
        var closed = new Counter();
        var server = await site.StartAsync(new Events
        {
            Opened = (connection, ref _) =>
            {
                connection.Write(output);
                opened.Add();
                return EvioAction.None;
            },
            Closed = (_, error) =>
            {
                Assert.Null(error);
                closed.Add();
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();
        await opened.ReachesAsync(1);

        var stopped = server.StopAsync(Site.Limit);

        Payload.AssertSame(output, await client.ReadToEndAsync());
        await stopped.Within();
        Assert.Equal(1, closed.Value);
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
    public async Task IdleTimeout_OfConnectionsThatHaveEndedLeavesNoTimers(string scheme)
    {
        const int Count = 300;
        await using var site = new Site(scheme);
        var closed = new Counter();
        await site.StartAsync(new Events
        {
            Opened = (_, ref options) =>
            {
                options.IdleTimeout = TimeSpan.FromMinutes(5);
                return EvioAction.None;
            },
            Data = static (connection, input) =>
            {
                connection.Write(input);
                return EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
        });

        // Its timer is older than all others.
        using var idle = await site.ConnectAsync();
        await idle.ExpectEchoAsync("x");
        for (var i = 1; i <= Count; i++)
        {
            using (var client = await site.ConnectAsync())
            {
                await client.ExpectEchoAsync("x");
            }

            await closed.ReachesAsync(i);
            var loop = site.Server!.Loops[0];
            Assert.InRange(await Support.Waiting.OnLoopAsync(loop, () => loop.TimerCount), 1, 1 + TimerQueue.MaxCancelled + 1);
        }
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

    /// <summary>A callback that has lost its loop is at work, however long that takes, and may be about to answer.</summary>
    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ConnectionWithALateCallback_IsNotIdle(string scheme)
    {
        await using var site = new Site(scheme);
        var lookedAgain = new ManualResetEventSlim();
        await site.StartAsync(
            new Events
            {
                Opened = static (_, ref options) =>
                {
                    options.IdleTimeout = TimeSpan.FromMilliseconds(100);
                    return EvioAction.None;
                },
                Data = (connection, input) =>
                {
                    // The loop is another thread's by then, and has looked whether the connection is idle more than once.
                    _ = connection.Loop.Schedule(TimeSpan.FromMilliseconds(350), _ => lookedAgain.Set(), null);
                    Assert.True(lookedAgain.Wait(Site.Limit));
                    connection.Write(input);
                    return EvioAction.None;
                },
            },
            LoopScheduling.Adaptive);
        using var client = await site.ConnectAsync();

        await client.ExpectEchoAsync("late");
        Assert.Empty(await client.ReadToEndAsync());
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
        }, LoopScheduling.Inline);
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
    [InlineData("tcp", 300.001, 301)]
    [InlineData("tcp", 0.001, 1)]
    [InlineData("tcp", 1e9, 32_767)]
    [InlineData("tcp-net", 300.001, 301)]
    [InlineData("tcp-net", 0.001, 1)]
    [InlineData("tcp-net", 1e9, 32_767)]
    public async Task Options_AreSetAndRounded(string scheme, double keepAlive, int expected)
    {
        await using var site = new Site(scheme);
        var detached = new TaskCompletionSource<Socket>(TaskCreationOptions.RunContinuationsAsynchronously);
        await site.StartAsync(new Events
        {
            Opened = (_, ref options) =>
            {
                options.TcpKeepAlive = TimeSpan.FromSeconds(keepAlive);
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
        Assert.Equal(expected, socket.GetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime));
        Assert.Equal(1, socket.GetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval));
        Assert.Equal(7, socket.GetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount));
        Assert.True(socket.NoDelay);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task BufferSizes_AreSet(string scheme)
    {
        await using var site = new Site(scheme);
        var detached = new TaskCompletionSource<Socket>(TaskCreationOptions.RunContinuationsAsynchronously);
        await site.StartAsync(new Events
        {
            Opened = static (_, ref options) =>
            {
                options.SendBufferSize = 10_000;
                options.ReceiveBufferSize = 20_000;
                return EvioAction.Detach;
            },
            Detached = (_, socket) =>
            {
                detached.SetResult(socket);
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        // The kernel doubles them (socket(7)).
        using var socket = await detached.Task.Within();
        Assert.Equal(20_000, socket.SendBufferSize);
        Assert.Equal(40_000, socket.ReceiveBufferSize);
    }

    [Theory]
    [MemberData(nameof(BadOptions))]
    public async Task BadOptions_CloseTheConnectionByName(string scheme, string option)
    {
        await using var site = new Site(scheme);
        var closed = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await site.StartAsync(new Events
        {
            Opened = (_, ref options) =>
            {
                // Boxed, so that the option can be set by its name.
                object boxed = options;
                var property = typeof(ConnectionOptions).GetProperty(option)!;
                property.SetValue(boxed, property.PropertyType == typeof(int) ? -1 : TimeSpan.FromSeconds(-1));
                options = (ConnectionOptions)boxed;
                return EvioAction.None;
            },
            Closed = (_, error) =>
            {
                closed.SetResult(error);
                return EvioAction.None;
            },
        });

        await site.ConnectAndWaitForEndAsync();

        var error = Assert.IsType<ArgumentException>(await closed.Task.Within());
        Assert.Contains($"{nameof(ConnectionOptions)}.{option} is -", error.Message, StringComparison.Ordinal);
    }
}
