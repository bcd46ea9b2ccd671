using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>A client that goes away is noticed by a request that neither reads nor writes, and by one that does.</summary>
public sealed class DisconnectTests
{
    public enum Departure
    {
        Fin,
        Reset,
    }

    [Theory, AllTransports(Departure.Fin, Departure.Reset)]
    public async Task An_idle_request_is_aborted(TransportKind kind, Departure departure)
    {
        var request = new WaitingRequest();
        await using var host = await TransportHost.StartAsync(kind, request.WaitAsync);
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await request.Entered.OrTimeout();

        Leave(client, departure);

        await request.Aborted.OrTimeout();
    }

    [Theory, AllTransports(Departure.Fin, Departure.Reset)]
    public async Task A_request_with_an_unread_body_is_aborted(TransportKind kind, Departure departure)
    {
        var request = new WaitingRequest();
        await using var host = await TransportHost.StartAsync(kind, request.WaitAsync);
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n").OrTimeout();
        await request.Entered.OrTimeout();
        await client.SendAllAsync(TestData.Bytes(100_000)).OrTimeout();

        Leave(client, departure);

        await request.Aborted.OrTimeout();
    }

    /// <remarks>More than the kernel's receive buffer takes before somebody reads, and less than <c>MaxReadBufferSize</c>.</remarks>
    [Theory, AllTransports(300_000, 600_000, 900_000)]
    public async Task A_request_with_a_large_unread_body_is_aborted_by_the_FIN_behind_it(TransportKind kind, int size)
    {
        var request = new WaitingRequest();
        await using var host = await TransportHost.StartAsync(
            kind, request.WaitAsync, new HostSettings { Kestrel = static options => options.Limits.MinRequestBodyDataRate = null });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").OrTimeout();
        await request.Entered.OrTimeout();
        await client.SendAllAsync(TestData.Bytes(size)).OrTimeout();

        Leave(client, Departure.Fin);

        await request.Aborted.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_request_that_stops_reading_its_large_body_is_aborted_by_the_FIN_behind_it(TransportKind kind)
    {
        var request = new WaitingRequest();
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                // It keeps what it has read, and never comes back for more.
                await context.Request.BodyReader.ReadAsync();
                await request.WaitAsync(context);
            },
            new HostSettings { Kestrel = static options => options.Limits.MinRequestBodyDataRate = null });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").OrTimeout();
        await client.SendAllAsync(TestData.Bytes(600_000)).OrTimeout();
        await request.Entered.OrTimeout();

        Leave(client, Departure.Fin);

        await request.Aborted.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_request_with_pipelined_ones_behind_it_is_aborted(TransportKind kind)
    {
        var request = new WaitingRequest();
        await using var host = await TransportHost.StartAsync(kind, request.WaitAsync);
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(string.Concat(Enumerable.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 10))).OrTimeout();
        await request.Entered.OrTimeout();

        Leave(client, Departure.Fin);

        await request.Aborted.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_request_over_HTTPS_is_aborted(TransportKind kind)
    {
        var request = new WaitingRequest();
        await using var host = await TransportHost.StartAsync(kind, request.WaitAsync, HostSettings.Https);
        using var client = host.CreateClient();
        using var source = new CancellationTokenSource();
        var get = client.GetAsync("/", source.Token);
        await request.Entered.OrTimeout();

        await source.CancelAsync();

        await request.Aborted.OrTimeout();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => get.OrTimeout());
    }

    [Theory, AllTransports(Departure.Fin, Departure.Reset)]
    public async Task A_request_that_is_writing_is_aborted(TransportKind kind, Departure departure)
    {
        var aborted = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            using var registration = context.RequestAborted.Register(aborted.SetResult);
            await Applications.WriteUntilAbortedAsync(context);
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await client.ReceiveExactlyAsync(1_000_000).OrTimeout();

        Leave(client, departure);

        await aborted.Task.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_request_whose_write_is_held_back_is_aborted_by_a_reset(TransportKind kind)
    {
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        long written = 0;
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            await Applications.WriteUntilAbortedAsync(context, count => Interlocked.Add(ref written, count));
            ended.SetResult();
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await Eventually.SettlesAsync(() => Volatile.Read(ref written));

        Leave(client, Departure.Reset);

        await ended.Task.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Aborting_a_request_cuts_the_connection(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static async context =>
        {
            await context.Response.StartAsync();
            context.Abort();
        });
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();

        Assert.Equal(SocketError.ConnectionReset, await client.ReceiveErrorAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Other_connections_go_on_while_clients_come_and_vanish(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync);
        using var steady = host.CreateClient();
        var vanishing = Task.Run(async () =>
        {
            for (var i = 0; i < 200; i++)
            {
                var client = await host.ConnectAsync();
                if (i % 4 > 0)
                {
                    await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf");
                }

                Leave(client, i % 2 == 0 ? Departure.Fin : Departure.Reset);
            }
        });

        for (var i = 0; i < 200 || !vanishing.IsCompleted; i++)
        {
            var sent = TestData.Bytes(1000, seed: i);
            using var response = await steady.PostAsync("/", new ByteArrayContent(sent)).OrTimeout();
            TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync().OrTimeout());
        }

        await vanishing.OrTimeout();
    }

    private static void Leave(Socket client, Departure departure)
    {
        if (departure is Departure.Reset)
        {
            client.Reset();
        }
        else
        {
            client.Dispose();
        }
    }

    /// <summary>A request that does nothing but wait for its abort.</summary>
    private sealed class WaitingRequest
    {
        private readonly TaskCompletionSource _entered = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource _aborted = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Task Entered => _entered.Task;

        public Task Aborted => _aborted.Task;

        public async Task WaitAsync(HttpContext context)
        {
            using var registration = context.RequestAborted.Register(() => _aborted.TrySetResult());
            _entered.TrySetResult();
            await _aborted.Task;
        }
    }
}
