using System.Net;
using Evio.Transport.Testing;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>A thread pool that has no thread left, and handlers that hold theirs.</summary>
public sealed class StarvedPoolTests
{
    /// <summary>
    /// Its handler flushes, and then blocks, on the thread that was given to it or, having yielded, on the only one of the pool; or it waits, and something else blocks that one, before the flush has its turn there.
    /// </summary>
    [Theory]
    [EvioTransports("/held", "/held?yields", "/held-queue")]
    public async Task The_first_bytes_of_a_stream_arrive_while_its_handler_blocks(TransportKind kind, string path)
    {
        await using var server = await OrdinaryServer.StartAsync(kind, isPoolLimited: true);
        using var client = await Testing.SocketExtensions.ConnectAsync(new IPEndPoint(IPAddress.Loopback, server.Http));

        await client.SendAllAsync($"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        _ = await client.ReceiveUntilAsync("first").OrTimeout();

        server.Release();
        _ = await client.ReceiveUntilAsync(", last\r\n0\r\n\r\n").OrTimeout();
    }

    /// <summary>Adaptive scheduling has learned that its handlers go on on the pool, and leaves their beginning to it as well. But not when nobody is there.</summary>
    [Fact]
    public async Task A_connection_whose_handlers_awaited_is_served_without_the_pool()
    {
        await using var server = await OrdinaryServer.StartAsync(TransportKind.EvioAdaptive, isPoolLimited: true);
        var endPoint = new IPEndPoint(IPAddress.Loopback, server.Http);
        using var client = await Testing.SocketExtensions.ConnectAsync(endPoint);
        for (var i = 0; i < 10; i++)
        {
            await client.SendAllAsync("GET /yield HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
            _ = await client.ReceiveUntilAsync("\r\n0\r\n\r\n").OrTimeout();
        }

        using var holder = await Testing.SocketExtensions.ConnectAsync(endPoint);
        await holder.SendAllAsync("GET /held?yields HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        _ = await holder.ReceiveUntilAsync("first").OrTimeout();

        for (var i = 0; i < 3; i++)
        {
            await client.SendAllAsync("GET /string HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
            Assert.Contains("Hello, World!", await client.ReceiveUntilAsync("\r\n0\r\n\r\n").OrTimeout(), StringComparison.Ordinal);
        }

        server.Release();
        _ = await holder.ReceiveUntilAsync(", last\r\n0\r\n\r\n").OrTimeout();
    }
}
