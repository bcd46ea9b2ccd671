using System.Net;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class ShutdownTests
{
    [Theory, AllTransports("1.1", "2.0")]
    public async Task A_graceful_stop_completes_the_request_in_flight(TransportKind kind, string version)
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var mayEnd = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var body = TestData.Bytes(1_000_000);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                entered.SetResult();
                await mayEnd.Task.OrTimeout();
                await context.Response.Body.WriteAsync(body);
            },
            version == "2.0" ? HostSettings.Http2 : null);
        using var client = host.CreateClient(Version.Parse(version));
        var get = client.GetByteArrayAsync("/");
        await entered.Task.OrTimeout();

        var stop = host.StopAsync();
        await AssertRefusesNewConnectionsAsync(host);
        Assert.False(stop.IsCompleted);
        mayEnd.SetResult();

        TestData.AssertSame(body, await get.OrTimeout());
        await stop.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Idle_connections_do_not_hold_up_the_stop(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync);
        using var silent = await host.ConnectAsync();
        var keptAlive = new List<Socket>();
        for (var i = 0; i < 20; i++)
        {
            var client = await host.ConnectAsync();
            keptAlive.Add(client);
            await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
            await client.ReceiveUntilAsync("Content-Length: 0\r\n").OrTimeout();
        }

        await host.StopAsync().OrTimeout();

        foreach (var client in keptAlive)
        {
            await client.ReceiveToEndAsync().OrTimeout();
            client.Dispose();
        }

        Assert.Empty(await silent.ReceiveToEndAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task An_idle_HTTP2_connection_does_not_hold_up_the_stop(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind, static context => context.Response.WriteAsync("ok"), HostSettings.Http2);
        using var client = host.CreateClient(HttpVersion.Version20);
        Assert.Equal("ok", await client.GetStringAsync("/").OrTimeout());

        await host.StopAsync().OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_stop_that_runs_out_of_time_aborts_what_is_left(TransportKind kind)
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            var aborted = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            using var registration = context.RequestAborted.Register(aborted.SetResult);
            entered.SetResult();
            await aborted.Task;
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await entered.Task.OrTimeout();
        using var deadline = new CancellationTokenSource();
        var stop = host.StopAsync(deadline.Token);
        await AssertRefusesNewConnectionsAsync(host);
        Assert.False(stop.IsCompleted);

        await deadline.CancelAsync();

        await stop.OrTimeout();
        Assert.Equal(SocketError.ConnectionReset, await client.ReceiveErrorAsync().OrTimeout());
    }

    /// <summary>A handler that holds its thread, and on an inline transport its loop, is not waited for when there is no time left.</summary>
    [Theory, AllTransports]
    public async Task A_stop_that_runs_out_of_time_does_not_wait_for_a_handler_that_blocks(TransportKind kind)
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var release = new ManualResetEventSlim();
        var left = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, context =>
        {
            entered.SetResult();
            release.Wait(TestTimeouts.Default);
            left.SetResult();
            return Task.CompletedTask;
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await entered.Task.OrTimeout();

        await host.StopAsync(new CancellationToken(canceled: true)).OrTimeout();

        Assert.False(left.Task.IsCompleted);
        release.Set();
        await left.Task.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_stop_that_runs_out_of_time_aborts_a_client_that_never_reads(TransportKind kind)
    {
        long written = 0;
        await using var host = await TransportHost.StartAsync(
            kind,
            context => Applications.WriteUntilAbortedAsync(context, count => Interlocked.Add(ref written, count)),
            new HostSettings { Kestrel = static options => options.Limits.MinResponseDataRate = null });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await Eventually.SettlesAsync(() => Volatile.Read(ref written));

        await host.StopAsync(new CancellationToken(canceled: true)).OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Disposal_without_a_stop_ends_everything(TransportKind kind)
    {
        var host = await TransportHost.StartAsync(kind, Applications.EchoAsync);
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await client.ReceiveUntilAsync("Content-Length: 0\r\n").OrTimeout();

        await host.DisposeAsync();

        // Cut short, so by a FIN or a reset, whichever comes first.
        var cut = await Record.ExceptionAsync(() => client.ReceiveToEndAsync().OrTimeout());
        Assert.True(cut is null or SocketException { SocketErrorCode: SocketError.ConnectionReset }, cut?.ToString());
        await AssertRefusesNewConnectionsAsync(host);
    }

    [Theory, AllTransports]
    public async Task A_stop_under_load_loses_no_request_that_reached_the_application(TransportKind kind)
    {
        var entered = 0;
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            Interlocked.Increment(ref entered);
            await Task.Yield();
            await context.Response.WriteAsync("ok");
        });
        var answered = 0;
        var clients = Enumerable.Range(0, 8).Select(_ => Task.Run(async () =>
        {
            using var client = await host.ConnectAsync();
            try
            {
                while (true)
                {
                    await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    await client.ReceiveUntilAsync("\r\n2\r\nok\r\n0\r\n\r\n");
                    Interlocked.Increment(ref answered);
                }
            }
            catch (Exception exception) when (exception is SocketException or EndOfStreamException)
            {
                // The server closed the connection between two requests.
            }
        })).ToArray();
        await Eventually.HoldsAsync(() => Volatile.Read(ref answered) > 500);

        await host.StopAsync().OrTimeout();

        await Task.WhenAll(clients).OrTimeout();
        Assert.Equal(entered, answered);
    }

    [Theory, AllTransports("1.1", "2.0")]
    public async Task A_stop_under_load_cuts_no_body_that_reached_the_application(TransportKind kind, string version)
    {
        const int Size = 200_000;
        var entered = 0;
        await using var host = await TransportHost.StartAsync(
            kind,
            context =>
            {
                Interlocked.Increment(ref entered);
                return Applications.EchoWholeAsync(context);
            },
            version == "2.0" ? HostSettings.Http2 : null);
        var answered = 0;
        var clients = Enumerable.Range(0, 6).Select(i => Task.Run(async () =>
        {
            var sent = TestData.Bytes(Size, seed: i);
            using var client = host.CreateClient(Version.Parse(version));
            try
            {
                while (true)
                {
                    using var response = await client.PostAsync("/", new ByteArrayContent(sent));
                    TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync());
                    Interlocked.Increment(ref answered);
                }
            }
            catch (HttpRequestException)
            {
                // Turned away before it reached the application, which the count below shows.
            }
        })).ToArray();
        await Eventually.HoldsAsync(() => Volatile.Read(ref answered) > 30);

        await host.StopAsync().OrTimeout();

        await Task.WhenAll(clients).OrTimeout();
        Assert.Equal(entered, answered);
    }

    private static Task AssertRefusesNewConnectionsAsync(TransportHost host) => Eventually.HoldsAsync(async () =>
    {
        try
        {
            using var client = await host.ConnectAsync();
            return false;
        }
        catch (SocketException exception) when (exception.SocketErrorCode is SocketError.ConnectionRefused)
        {
            return true;
        }
        catch (SocketException exception) when (exception.SocketErrorCode is SocketError.ConnectionReset)
        {
            // Its handshake ended between the last accept and the close of the listening socket; the kernel resets those.
            return false;
        }
    });
}
