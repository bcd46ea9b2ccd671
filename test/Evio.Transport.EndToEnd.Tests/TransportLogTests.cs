using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What the transport says of clients that misbehave: their fault, so never above Debug.</summary>
public sealed class TransportLogTests
{
    [Theory, AllTransports]
    public async Task Clients_that_vanish_or_reset_are_never_logged_above_Debug(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static async context =>
        {
            if (context.Request.Path == "/large")
            {
                await Applications.WriteUntilAbortedAsync(context);
                return;
            }

            await Applications.EchoAsync(context);
        });
        for (var round = 0; round < 10; round++)
        {
            foreach (var text in new[]
            {
                string.Empty,
                "GET / HT",
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf",
                "nonsense\r\n\r\n",
            })
            {
                var fin = await host.ConnectAsync();
                await fin.SendAllAsync(text).OrTimeout();
                fin.Dispose();

                var reset = await host.ConnectAsync();
                await reset.SendAllAsync(text).OrTimeout();
                reset.Reset();

                using var halfClosed = await host.ConnectAsync();
                await halfClosed.SendAllAsync(text).OrTimeout();
                halfClosed.Shutdown(SocketShutdown.Send);
                await Record.ExceptionAsync(() => halfClosed.ReceiveToEndAsync().OrTimeout());
            }
        }

        await host.StopAsync().OrTimeout();

        Assert.DoesNotContain(host.Logs.OfTransport, static entry => entry.Level > LogLevel.Debug);
        Assert.NotEmpty(host.Logs.OfTransport);
    }

    [Theory, AllTransports]
    public async Task TLS_clients_that_vanish_in_the_handshake_are_never_logged_above_Debug(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, HostSettings.Https);
        for (var i = 0; i < 20; i++)
        {
            var client = await host.ConnectAsync();
            await client.SendAllAsync(new byte[] { 22, 3, 1, 2, 0 }.AsMemory(0, (i % 5) + 1)).OrTimeout();
            if (i % 2 == 0)
            {
                client.Reset();
            }

            client.Dispose();
        }

        await host.StopAsync().OrTimeout();

        Assert.DoesNotContain(host.Logs.OfTransport, static entry => entry.Level > LogLevel.Debug);
    }

    [Theory, AllTransports]
    public async Task The_end_of_a_connection_is_logged_at_Debug_with_the_events_of_the_reference(TransportKind kind)
    {
        var entered = new SemaphoreSlim(0);
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            entered.Release();
            await context.Response.WriteAsync("ok");
        });

        var fin = await host.ConnectAsync();
        await fin.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await entered.WaitAsync().OrTimeout();
        await fin.ReceiveUntilAsync("0\r\n\r\n").OrTimeout();
        fin.Dispose();
        await HasLoggedAsync(host, 6, "ConnectionReadFin");
        await HasLoggedAsync(host, 7, "ConnectionWriteFin");

        var reset = await host.ConnectAsync();
        await reset.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await entered.WaitAsync().OrTimeout();
        await reset.ReceiveUntilAsync("0\r\n\r\n").OrTimeout();
        reset.Reset();
        await HasLoggedAsync(host, 19, "ConnectionReset");
    }

    [Theory, AllTransports]
    public async Task An_abort_is_logged_as_a_written_RST(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static context =>
        {
            context.Abort();
            return Task.CompletedTask;
        });
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();

        await HasLoggedAsync(host, 8, "ConnectionWriteRst");
    }

    [Theory, AllTransports]
    public async Task A_read_ahead_that_meets_the_limit_is_logged_as_pause_and_resume(TransportKind kind)
    {
        var mayRead = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, static _ => { }, new HostSettings
        {
            Transport = new TransportSettings { MaxReadBufferSize = 16 * 1024 },
            Listen = listen => listen.Run(async connection =>
            {
                await mayRead.Task;
                await connection.Transport.Input.CopyToAsync(Stream.Null);
            }),
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(new byte[50_000]).OrTimeout();

        // With the end behind it evio reads ahead as well; otherwise it leaves the input to the kernel.
        client.Shutdown(SocketShutdown.Send);
        await HasLoggedAsync(host, 4, "ConnectionPause");
        mayRead.SetResult();

        await HasLoggedAsync(host, 5, "ConnectionResume");
        Assert.Empty(await client.ReceiveToEndAsync().OrTimeout());
        await HasLoggedAsync(host, 6, "ConnectionReadFin");
    }

    private static Task HasLoggedAsync(TransportHost host, int id, string name) => Eventually.HoldsAsync(
        () => host.Logs.OfTransport.Any(entry => entry.Level is LogLevel.Debug && entry.EventId.Id == id && entry.EventId.Name == name),
        () => $"{name} among: {string.Join("; ", host.Logs.OfTransport)}");
}
