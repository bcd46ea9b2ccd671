namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary><see cref="Connection.Wake"/> and <see cref="Connection.SendAsync"/>: calls from outside the loop.</summary>
public sealed class WakeTests
{
    public static TheoryData<string> Schemes => Site.Schemes;

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Wakes_OfManyThreadsAllArrive(string scheme)
    {
        const int Threads = 8;
        const int WakesPerThread = 12_500;
        await using var site = new Site(scheme);
        var (events, opened, _) = Recording(out var woken);
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        var threads = Enumerable.Range(0, Threads).Select(_ => Task.Factory.StartNew(
            () =>
            {
                for (var i = 0; i < WakesPerThread; i++)
                {
                    Assert.True(connection.Wake());
                }
            },
            CancellationToken.None,
            TaskCreationOptions.LongRunning,
            TaskScheduler.Default));
        await Task.WhenAll(threads).Within();

        await woken.ReachesAsync(Threads * WakesPerThread);
        await site.Server!.StopAsync().Within();
        Assert.Equal(Threads * WakesPerThread, woken.Value);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Wake_ArrivesWithNoOtherTraffic(string scheme)
    {
        await using var site = new Site(scheme);
        var (events, opened, _) = Recording(out var woken);
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        // Each meets a loop that is about to block, or has just done so.
        for (var i = 1; i <= 500; i++)
        {
            Assert.True(connection.Wake());
            await woken.ReachesAsync(i);
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task WakeAndSend_AreRefusedAfterTheClose(string scheme)
    {
        await using var site = new Site(scheme);
        var (events, opened, closed) = Recording(out var woken);
        await site.StartAsync(events);
        var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        client.Dispose();
        await closed.ReachesAsync(1);

        await AssertRefusedAsync(connection);
        Assert.Equal(0, woken.Value);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task WakeAndSend_AreRefusedAfterTheStop(string scheme)
    {
        await using var site = new Site(scheme);
        var (events, opened, closed) = Recording(out _);
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        await site.Server!.StopAsync().Within();

        Assert.Equal(1, closed.Value);
        await AssertRefusedAsync(connection);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task WakeAndSend_AreRefusedOnceTheCloseIsRequested(string scheme)
    {
        await using var site = new Site(scheme);
        var refused = new TaskCompletionSource<Task>(TaskCreationOptions.RunContinuationsAsynchronously);
        await site.StartAsync(new Events
        {
            CloseTimeout = Site.Limit,
            Opened = (connection, ref _) =>
            {
                // More than the kernel takes, so that the connection does not end at once.
                connection.Write(new byte[16 * 1024 * 1024]);
                connection.Close();
                refused.SetResult(AssertRefusedAsync(connection));
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        await await refused.Task.Within();
        Assert.Equal(16 * 1024 * 1024, (await client.ReadToEndAsync()).Length);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Wake_WhileOutputIsPending_ComesAfterAllOfIt(string scheme)
    {
        await using var site = new Site(scheme);
        var payload = Payload.Random(Payload.NewSeed(), 16 * 1024 * 1024);
        var opened = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        var woken = new Counter();
        await site.StartAsync(new Events
        {
            Opened = (connection, ref _) =>
            {
                connection.Write(payload);
                opened.SetResult(connection);
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                Assert.True(input.IsEmpty);
                Assert.NotEqual(0, connection.PendingOutput);
                connection.Write("woken"u8);
                woken.Add();
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        Assert.True(connection.Wake());
        await woken.ReachesAsync(1);

        Payload.AssertSame(payload, await client.ReadAsync(payload.Length));
        await client.ExpectAsync("woken");
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Close_WithPendingOutput_IsNotTakenBackByAWake(string scheme)
    {
        await using var site = new Site(scheme);
        var payload = Payload.Random(Payload.NewSeed(), 16 * 1024 * 1024);
        var closing = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        var closed = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await site.StartAsync(new Events
        {
            CloseTimeout = Site.Limit,
            Data = (connection, input) =>
            {
                if (input.IsEmpty)
                {
                    return EvioAction.None;
                }

                connection.Write(payload);
                closing.SetResult(connection);
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
        var connection = await closing.Task.Within();

        // Depending on the moment it is refused, or not called any more.
        _ = connection.Wake();

        Payload.AssertSame(payload, await client.ReadToEndAsync());
        Assert.Null(await closed.Task.Within());
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Sends_OfManyThreadsKeepTheirOrderAndComplete(string scheme)
    {
        const int Threads = 8;
        const int SendsPerThread = 500;
        await using var site = new Site(scheme);
        var (events, opened, _) = Recording(out _);
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        // Each message names its thread and its number.
        var received = client.ReadAsync(Threads * SendsPerThread * 3);
        var threads = Enumerable.Range(0, Threads).Select(thread => Task.Run(() => Task.WhenAll(
            Enumerable.Range(0, SendsPerThread).Select(i => connection.SendAsync(new[] { (byte)thread, (byte)(i >> 8), (byte)i })))));
        await Task.WhenAll(threads).Within();

        var next = new int[Threads];
        foreach (var message in (await received).Chunk(3))
        {
            Assert.Equal(next[message[0]]++, (message[1] << 8) | message[2]);
        }

        Assert.All(next, static count => Assert.Equal(SendsPerThread, count));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Send_FollowsPendingOutputAndCompletesWhenItIsTaken(string scheme)
    {
        await using var site = new Site(scheme);
        var payload = Payload.Random(Payload.NewSeed(), 8 * 1024 * 1024);
        var (events, opened, _) = Recording(out _);
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        var first = connection.SendAsync(payload);
        var second = connection.SendAsync("end"u8.ToArray());
        Assert.False(first.IsCompleted);

        Payload.AssertSame(payload, await client.ReadAsync(payload.Length));
        await client.ExpectAsync("end");
        await Task.WhenAll(first, second).Within();
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Send_OfNothingCompletes(string scheme)
    {
        await using var site = new Site(scheme);
        var (events, opened, _) = Recording(out _);
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        await connection.SendAsync(default).Within();
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Send_FailsWhenTheConnectionEndsBefore(string scheme)
    {
        await using var site = new Site(scheme);
        var (events, opened, closed) = Recording(out _);
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();

        var send = connection.SendAsync(new byte[16 * 1024 * 1024]);
        client.Reset();

        await Assert.ThrowsAsync<IOException>(() => send.Within());
        await closed.ReachesAsync(1);
    }

    private static async Task AssertRefusedAsync(Connection connection)
    {
        Assert.False(connection.Wake());
        await Assert.ThrowsAsync<IOException>(() => connection.SendAsync(new byte[1]));
        connection.ShutdownSend();
        connection.Close();
    }

    /// <summary>Events that tell of the connection and count its empty inputs and its end.</summary>
    private static (Events Events, TaskCompletionSource<Connection> Opened, Counter Closed) Recording(out Counter woken)
    {
        var opened = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        var closed = new Counter();
        var calls = woken = new Counter();
        var events = new Events
        {
            Opened = (connection, ref _) =>
            {
                opened.SetResult(connection);
                return EvioAction.None;
            },
            Data = (_, input) =>
            {
                if (input.IsEmpty)
                {
                    calls.Add();
                }

                return EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
        };
        return (events, opened, closed);
    }
}
