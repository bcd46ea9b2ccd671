using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>The tokens of SendAsync and StopAsync.</summary>
public sealed class CancellationTests
{
    private static readonly byte[] More = new byte[4 * 1024 * 1024];

    public static TheoryData<string> Schemes => Site.Schemes;

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task A_send_that_has_not_begun_is_withdrawn(string scheme)
    {
        await using var site = new Site(scheme);
        var connection = await OpenAsync(site, out var client);
        using var cancelled = new CancellationTokenSource();

        // More than the system takes: what comes after it waits.
        var first = connection.SendAsync(More, cancelled.Token);
        var withdrawn = Enumerable.Range(0, 200).Select(_ => connection.SendAsync("withdrawn"u8.ToArray(), cancelled.Token)).ToArray();
        var kept = connection.SendAsync("kept"u8.ToArray());
        var empty = connection.SendAsync(default);
        await Support.Waiting.OnLoopAsync(connection.Loop, () => connection.PendingOutput);
        await cancelled.CancelAsync();
        foreach (var send in withdrawn)
        {
            var exception = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => send.Within());
            Assert.Equal(cancelled.Token, exception.CancellationToken);
        }

        Assert.False(first.IsCompleted);
        Assert.False(kept.IsCompleted);
        Assert.Equal(More.Length, (await (await client).ReadAsync(More.Length)).Length);
        await (await client).ExpectAsync("kept");
        await Task.WhenAll(first, kept, empty).Within();
        Assert.Equal(0, await Support.Waiting.OnLoopAsync(connection.Loop, () => connection.PendingOutput));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task A_token_that_is_cancelled_before_sends_nothing(string scheme)
    {
        await using var site = new Site(scheme);
        var connection = await OpenAsync(site, out var client);

        Assert.True(connection.SendAsync("not sent"u8.ToArray(), new CancellationToken(canceled: true)).IsCanceled);
        await connection.SendAsync("sent"u8.ToArray(), CancellationToken.None).Within();

        await (await client).ExpectAsync("sent");
    }

    /// <summary>The loop does not come to the send: the callback keeps it, or is blocked, and waits for this very send.</summary>
    [Theory]
    [MemberData(nameof(StopTests.Cases), MemberType = typeof(StopTests))]
    public async Task A_callback_gives_up_waiting_for_its_own_send(string scheme, LoopScheduling scheduling)
    {
        await using var site = new Site(scheme);
        await site.StartAsync(
            new Events
            {
                Data = (connection, _) =>
                {
                    using var cancelled = new CancellationTokenSource();
                    var send = connection.SendAsync("not sent"u8.ToArray(), cancelled.Token);
                    if (scheduling == LoopScheduling.Adaptive)
                    {
                        Support.Waiting.Until(() => !connection.Loop.IsCurrent);
                    }

                    cancelled.Cancel();
                    Assert.True(Assert.ThrowsAny<AggregateException>(() => send.Wait(Site.Limit)).InnerException is OperationCanceledException);
                    connection.Write("sent"u8);
                    return EvioAction.Close;
                },
            },
            scheduling);
        using var client = await site.ConnectAsync();

        await client.WriteAsync("x");

        await client.ExpectToEndAsync("sent");
    }

    [Fact]
    public async Task Withdrawn_sends_are_not_kept()
    {
        await using var site = new Site("tcp");
        var connection = await OpenAsync(site, out var client);
        var first = connection.SendAsync(More);
        var references = await SendAndWithdrawAsync(connection, 100);

        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();

        // The last one may still be in a register or on a stack.
        Assert.InRange(references.Count(static reference => reference.IsAlive), 0, 2);
        Assert.False(first.IsCompleted);
        _ = await (await client).ReadAsync(More.Length);
        await first.Within();

        static async Task<List<WeakReference>> SendAndWithdrawAsync(Connection connection, int count)
        {
            var references = new List<WeakReference>();
            for (var i = 0; i < count; i++)
            {
                references.Add(await SendAndWithdrawOneAsync(connection));
            }

            return references;
        }

        static async Task<WeakReference> SendAndWithdrawOneAsync(Connection connection)
        {
            using var cancelled = new CancellationTokenSource();
            var data = new byte[1000];
            var reference = new WeakReference(data);
            var send = connection.SendAsync(data, cancelled.Token);
            await Support.Waiting.OnLoopAsync(connection.Loop, () => connection.PendingOutput);
            await cancelled.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => send.Within());
            return reference;
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task A_close_does_not_wait_for_what_is_withdrawn(string scheme)
    {
        await using var site = new Site(scheme);
        var connection = await OpenAsync(site, out var client);
        using var cancelled = new CancellationTokenSource();
        var first = connection.SendAsync(More);
        var withdrawn = connection.SendAsync(More, cancelled.Token);
        await Support.Waiting.OnLoopAsync(connection.Loop, () => connection.PendingOutput);
        connection.Close();
        await cancelled.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => withdrawn.Within());
        Assert.Equal(More.Length, (await (await client).ReadToEndAsync()).Length);
        await first.Within();
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task A_token_ends_the_deadline_of_a_stop(string scheme)
    {
        await using var site = new Site(scheme);
        var connection = await OpenAsync(site, out var client);
        _ = await client;
        using var hurry = new CancellationTokenSource();

        // The peer does not read, and so the stop would take its hour.
        var send = connection.SendAsync(More);
        await Support.Waiting.OnLoopAsync(connection.Loop, () => connection.PendingOutput);
        var unhurried = site.Server!.StopAsync(TimeSpan.FromHours(1));
        var stop = site.Server.StopAsync(cancellationToken: hurry.Token);
        Assert.False(stop.IsCompleted);
        await hurry.CancelAsync();

        await stop.Within();
        await unhurried.Within();
        await Assert.ThrowsAsync<IOException>(() => send.Within());
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task A_token_ends_the_wait_of_a_stop_for_a_callback(string scheme)
    {
        await using var site = new Site(scheme);
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        using var hurry = new CancellationTokenSource();
        var server = await site.StartAsync(new Events
        {
            Data = (_, _) =>
            {
                entered.Set();
                release.Await();
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();
        await client.WriteAsync("x");
        entered.Await();

        var stop = server.StopAsync(TimeSpan.FromHours(1), hurry.Token);
        Assert.False(stop.IsCompleted);
        await hurry.CancelAsync();

        await stop.Within();
        Assert.False(release.IsSet);
        release.Set();
        await client.WaitForEndAsync();
    }

    [Fact]
    public async Task A_stop_with_a_cancelled_token_is_a_stop_without_time()
    {
        await using var site = new Site("tcp");
        var connection = await OpenAsync(site, out var client);
        _ = await client;
        var send = connection.SendAsync(More);

        await site.Server!.StopAsync(TimeSpan.FromHours(1), new CancellationToken(canceled: true)).Within();

        await Assert.ThrowsAsync<IOException>(() => send.Within());
    }

    private static Task<Connection> OpenAsync(Site site, out Task<Client> client)
    {
        var opened = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        var started = site.StartAsync(new Events
        {
            CloseTimeout = Site.Limit,
            Opened = (connection, ref options) =>
            {
                options.SendBufferSize = 4096;
                opened.SetResult(connection);
                return EvioAction.None;
            },
        });
        client = ConnectAsync();
        return opened.Task.Within();

        async Task<Client> ConnectAsync()
        {
            await started;
            return await site.ConnectAsync();
        }
    }
}
