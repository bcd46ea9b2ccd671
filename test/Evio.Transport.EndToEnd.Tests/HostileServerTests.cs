using System.Net.Sockets;
using Evio.Transport.Testing;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Loggers, listeners, pools, callbacks and handlers that throw at the server that calls them: nothing dies.</summary>
public sealed class HostileServerTests
{
    private const int Clients = 4;
    private const int VisitsOfClient = 40;

    [Theory]
    [EvioTransports(
        HostileServer.Part.Logger,
        HostileServer.Part.MeterListener,
        HostileServer.Part.MemoryPool,
        HostileServer.Part.Callbacks,
        HostileServer.Part.UnhandledExceptionHandler)]
    public async Task What_throws_at_a_server_costs_at_most_its_connection(TransportKind kind, object part)
    {
        var seed = TestData.NewSeed();
        var hostile = (HostileServer.Part)part;
        await using var server = await HostileServer.StartAsync(kind, hostile, seed);
        await server.ExplainAsync(VisitAsync(server, hostile, seed));
        await server.ExplainAsync(CalmAsync(server));
        await server.StopAsync();
    }

    private static async Task VisitAsync(HostileServer server, HostileServer.Part hostile, int seed)
    {
        var lost = await Task.WhenAll(Enumerable.Range(0, Clients).Select(client => Task.Run(() => VisitAsync(server, new Random(seed + client)))));

        // Neither to log nor to count nor to be told needs anything that a connection could not do without.
        Assert.True(
            lost.Sum() == 0 || hostile is HostileServer.Part.MemoryPool or HostileServer.Part.Callbacks,
            $"{lost.Sum()} of {Clients * VisitsOfClient} visits were lost ({TestData.SeedVariable}={seed}).");
    }

    /// <summary>When nothing throws any more, everything is served.</summary>
    private static async Task CalmAsync(HostileServer server)
    {
        // Where there is no memory the request may need a second try.
        await Eventually.HoldsAsync(() => TryVisitAsync(server, static (client, _) => client.GetStringAsync("calm")));
        for (var left = 20; left > 0; left--)
        {
            using var client = NewClient(server);
            Assert.Equal("served", await client.GetStringAsync("/").OrTimeout());
            Assert.True(await TryEchoAsync(server, 1000));
        }
    }

    /// <returns>How many visits the server has not served to their end.</returns>
    private static async Task<int> VisitAsync(HostileServer server, Random random)
    {
        var lost = 0;
        for (var left = VisitsOfClient; left > 0; left--)
        {
            var isServed = random.Next(8) switch
            {
                0 => await TryVisitAsync(server, KeepAliveAsync),
                1 => await TryVisitAsync(server, (client, server) => EchoAsync(client, random.Next(300_000))),
                2 => await TryVisitAsync(server, StreamAsync),
                3 => await AbortAsync(server),
                4 => await ResetAsync(server),
                5 => await TryVisitAsync(server, static (client, _) => client.GetStringAsync("block")),
                6 => await TryVisitAsync(server, static (client, _) => client.GetStringAsync("unhandled")),
                _ => await TryEchoAsync(server, random.Next(1, 100_000)),
            };
            lost += isServed ? 0 : 1;
        }

        return lost;
    }

    private static HttpClient NewClient(HostileServer server) =>
        new(new SocketsHttpHandler { UseProxy = false }) { BaseAddress = server.Address, Timeout = TestTimeouts.Default };

    /// <summary>Visits with a client of its own, and so with connections of its own.</summary>
    /// <returns>Whether the server has answered.</returns>
    private static async Task<bool> TryVisitAsync(HostileServer server, Func<HttpClient, HostileServer, Task> visitAsync)
    {
        using var client = NewClient(server);
        try
        {
            await visitAsync(client, server).OrTimeout();
            return true;
        }
        catch (HttpRequestException)
        {
            return false;
        }
        catch (IOException)
        {
            return false;
        }
    }

    private static async Task KeepAliveAsync(HttpClient client, HostileServer server)
    {
        for (var left = 5; left > 0; left--)
        {
            Assert.Equal("served", await client.GetStringAsync("/"));
        }
    }

    private static async Task EchoAsync(HttpClient client, int length)
    {
        var sent = TestData.Bytes(length);
        using var content = new ByteArrayContent(sent);
        using var response = await client.PostAsync("echo", content);
        response.EnsureSuccessStatusCode();
        TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync());
    }

    private static async Task StreamAsync(HttpClient client, HostileServer server) =>
        TestData.AssertSame(TestData.Bytes(HostileServer.Streamed), await client.GetByteArrayAsync("stream"));

    private static async Task<bool> AbortAsync(HostileServer server)
    {
        Assert.False(await TryVisitAsync(server, static (client, _) => client.GetStringAsync("abort")));
        return true;
    }

    private static async Task<bool> ResetAsync(HostileServer server)
    {
        using var socket = await SocketExtensions.ConnectAsync(new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, server.Address.Port));
        await socket.SendAllAsync("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        socket.Reset();
        return true;
    }

    /// <summary>Has the callback API's server send bytes back.</summary>
    /// <returns>Whether all came back. What has come is right.</returns>
    private static async Task<bool> TryEchoAsync(HostileServer server, int length)
    {
        var sent = TestData.Bytes(length);
        var received = new byte[length];
        var count = 0;
        try
        {
            using var socket = await SocketExtensions.ConnectAsync(server.Echo);
            var sending = socket.SendAllAsync(sent);
            for (var now = 1; now > 0 && count < length; count += now)
            {
                now = await socket.ReceiveAsync(received.AsMemory(count)).OrTimeout();
            }

            await sending.OrTimeout();
        }
        catch (SocketException exception) when (exception.SocketErrorCode is
            SocketError.ConnectionReset or SocketError.ConnectionRefused or SocketError.ConnectionAborted or SocketError.Shutdown)
        {
            // The server has ended it.
        }

        TestData.AssertSame(sent.AsMemory(0, count), received.AsMemory(0, count));
        return count == length;
    }
}
