using System.Net.Sockets;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Clients that end their connection in every way there is.</summary>
internal static class ClientEnds
{
    private static readonly Func<TransportHost, Task>[] Ends =
    [
        KeepAliveThenFinAsync,
        ConnectionCloseAsync,
        VanishAtOnceAsync,
        ResetAtOnceAsync,
        HalfSentRequestThenFinAsync,
        HalfSentRequestThenResetAsync,
        ResetDuringTheAnswerAsync,
        ServerAbortsAsync,
        ApplicationThrowsAsync,
        MalformedRequestAsync,
    ];

    public static int Count => Ends.Length;

    /// <summary>Runs <paramref name="connections"/> clients, in turns of all kinds, twenty at a time.</summary>
    public static async Task RunAsync(TransportHost host, int connections)
    {
        foreach (var batch in Enumerable.Range(0, connections).Chunk(20))
        {
            await Task.WhenAll(batch.Select(i => Ends[i % Ends.Length](host))).OrTimeout();
        }
    }

    /// <summary>The application that the clients expect.</summary>
    public static async Task AnswerAsync(HttpContext context)
    {
        switch (context.Request.Path.Value)
        {
            case "/large":
                await Applications.WriteUntilAbortedAsync(context);
                break;
            case "/abort":
                context.Abort();
                break;
            case "/throw":
                throw new InvalidTimeZoneException();
            default:
                await Applications.EchoAsync(context);
                break;
        }
    }

    private static async Task KeepAliveThenFinAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        for (var i = 0; i < 3; i++)
        {
            await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            await client.ReceiveUntilAsync("\r\n\r\n");
        }
    }

    private static async Task ConnectionCloseAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        await client.ReceiveToEndAsync();
    }

    private static async Task VanishAtOnceAsync(TransportHost host) => (await host.ConnectAsync()).Dispose();

    private static async Task ResetAtOnceAsync(TransportHost host) => (await host.ConnectAsync()).Reset();

    private static async Task HalfSentRequestThenFinAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf");
    }

    private static async Task HalfSentRequestThenResetAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf");
        client.Reset();
    }

    private static async Task ResetDuringTheAnswerAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        await client.ReceiveExactlyAsync(100_000);
        client.Reset();
    }

    private static async Task ServerAbortsAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET /abort HTTP/1.1\r\nHost: a\r\n\r\n");
        Assert.Equal(SocketError.ConnectionReset, await client.ReceiveErrorAsync());
    }

    private static async Task ApplicationThrowsAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET /throw HTTP/1.1\r\nHost: a\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 500", await client.ReceiveUntilAsync("\r\n\r\n"), StringComparison.Ordinal);
    }

    private static async Task MalformedRequestAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("nonsense\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 400", Encoding.ASCII.GetString(await client.ReceiveToEndAsync()), StringComparison.Ordinal);
    }
}
