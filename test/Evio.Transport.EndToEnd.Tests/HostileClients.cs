using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Clients that mean no good, or know no better, each kind in numbers. They come to an end of their own accord: no time limit of the server helps.</summary>
public static class HostileClients
{
    internal const int LargeSize = 5_000_000;

    private const int SmallWindow = 8 * 1024;

    public enum Kind
    {
        DripHeaders,
        NeverRead,
        Oversized,
        Garbage,
        TlsGarbage,
        Http2Garbage,
        Bursts,
        UrgentData,
        ZeroWindow,
        KeepAliveProbes,
        Storm,
    }

    /// <summary>The application that they expect.</summary>
    public static Task AnswerAsync(HttpContext context) => context.Request.Path.Value switch
    {
        "/endless" => Applications.WriteUntilAbortedAsync(context),
        "/large" => context.Response.Body.WriteAsync(TestData.Bytes(LargeSize)).AsTask(),
        "/body" => context.Request.Body.CopyToAsync(Stream.Null),
        _ => Applications.EchoAsync(context),
    };

    /// <param name="kind">What the clients do.</param>
    /// <param name="http">Where HTTP/1.1 is spoken.</param>
    /// <param name="https">Where TLS is.</param>
    /// <param name="h2c">Where HTTP/2 without TLS is.</param>
    /// <param name="seed">Of what is random.</param>
    public static Task RunAsync(Kind kind, EndPoint http, EndPoint https, EndPoint h2c, int seed) => kind switch
    {
        Kind.DripHeaders => DripHeadersAsync(http),
        Kind.NeverRead => NeverReadAsync(http),
        Kind.Oversized => OversizedAsync(http),
        Kind.Garbage => SendAllKindsAsync(http, Random(seed, count: 60)),
        Kind.TlsGarbage => SendAllKindsAsync(https, Random(seed, count: 20), TlsGarbage(seed)),
        Kind.Http2Garbage => SendAllKindsAsync(h2c, Random(seed, count: 20), Http2Garbage(seed)),
        Kind.Bursts => BurstsAsync(http, bursts: 50, size: 200),
        Kind.UrgentData => UrgentDataAsync(http),
        Kind.ZeroWindow => ZeroWindowAsync(http),
        Kind.KeepAliveProbes => KeepAliveProbesAsync(http),
        Kind.Storm => StormAsync(http, seed),
        _ => throw new ArgumentOutOfRangeException(nameof(kind)),
    };

    /// <summary>Sends a body and compares what comes back.</summary>
    public static async Task ExchangeAsync(Socket client, byte[] body)
    {
        var sending = client.SendAllAsync($"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body.Length}\r\n\r\n");
        await sending.OrTimeout();
        sending = client.SendAllAsync(body);
        await ReceiveHeadersAsync(client);
        TestData.AssertSame(body, await ReceiveChunkedAsync(client, body.Length));
        await sending.OrTimeout();
    }

    private static async Task ReceiveHeadersAsync(Socket client) =>
        Assert.StartsWith("HTTP/1.1 200", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);

    /// <summary>Reads a body of chunks whole.</summary>
    private static async Task<byte[]> ReceiveChunkedAsync(Socket client, int size)
    {
        using var body = new MemoryStream();
        while (true)
        {
            var length = Convert.ToInt32((await client.ReceiveUntilAsync("\r\n").OrTimeout()).Trim(), 16);
            body.Write(await client.ReceiveExactlyAsync(length).OrTimeout());
            Assert.Equal("\r\n", await client.ReceiveUntilAsync("\r\n").OrTimeout());
            if (length == 0)
            {
                Assert.Equal(size, body.Length);
                return body.ToArray();
            }
        }
    }

    private static async Task DripHeadersAsync(EndPoint endPoint)
    {
        const int Count = 100;
        const string Request = "GET / HTTP/1.1\r\nHost: a\r\nX: slow\r\nConnection: close\r\n\r\n";
        var clients = await Task.WhenAll(Enumerable.Range(0, Count).Select(_ => SocketExtensions.ConnectAsync(endPoint)));
        foreach (var character in Request[..^1])
        {
            foreach (var client in clients)
            {
                await client.SendAllAsync(character.ToString()).OrTimeout();
            }
        }

        for (var i = 0; i < Count; i++)
        {
            using var client = clients[i];
            switch (i % 3)
            {
                case 0:
                    await client.SendAllAsync("\n").OrTimeout();
                    Assert.StartsWith("HTTP/1.1 200", Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout()), StringComparison.Ordinal);
                    break;
                case 1:
                    client.Reset();
                    break;
            }
        }
    }

    private static async Task NeverReadAsync(EndPoint endPoint)
    {
        const int Count = 30;
        var clients = await Task.WhenAll(Enumerable.Range(0, Count).Select(_ => ConnectWithSmallWindowAsync(endPoint)));
        foreach (var client in clients)
        {
            await client.SendAllAsync("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        }

        foreach (var client in clients)
        {
            await Eventually.HoldsAsync(() => client.Available > 0);
        }

        // The windows are shut, and stay so.
        await Eventually.SettlesAsync(() => clients.Sum(static client => client.Available));
        for (var i = 0; i < Count; i++)
        {
            using var client = clients[i];
            if (i % 2 == 0)
            {
                client.Reset();
            }
        }
    }

    private static async Task OversizedAsync(EndPoint endPoint)
    {
        const string Line = "GET / HTTP/1.1\r\nHost: a\r\n";
        string[] requests =
        [
            $"GET /{new string('a', 20_000)} HTTP/1.1\r\nHost: a\r\n\r\n",
            $"{new string('G', 100_000)}",
            $"{Line}X: {new string('x', 200_000)}\r\n\r\n",
            $"{Line}{new string('x', 100_000)}: x\r\n\r\n",
            $"{Line}{string.Concat(Enumerable.Range(0, 1000).Select(static i => $"X{i}: x\r\n"))}\r\n",
            "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 40000000\r\n\r\n",
            "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
            $"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{new string('0', 100_000)}\r\n",
            $"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{new string('e', 100_000)}\r\n",
        ];
        foreach (var request in requests)
        {
            using var client = await SocketExtensions.ConnectAsync(endPoint);
            var answer = await SendAndReceiveToAnyEndAsync(client, Encoding.ASCII.GetBytes(request));

            // Refused, or cut without an answer: some wait for more, which the end of the input says that there is not.
            Assert.False(answer?.StartsWith("HTTP/1.1 2", StringComparison.Ordinal) ?? false, $"{request[..50]}: {answer}");
        }
    }

    private static byte[][] Random(int seed, int count)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(i => TestData.Bytes(1 + random.Next(i % 2 == 0 ? 100 : 50_000), seed + i))];
    }

    private static IEnumerable<byte[]> TlsGarbage(int seed)
    {
        var junk = TestData.Bytes(70_000, seed);

        // TLSPlaintext { type, version, length } (RFC 8446, 5.1); handshake 22, alert 21, application data 23.
        foreach (var (type, length, sent) in ((byte, ushort, int)[])
            [(22, 0xFFFF, 65535), (22, 0, 0), (22, 16384, 100), (22, 200, 200), (21, 2, 2), (23, 1000, 1000), (255, 10, 10)])
        {
            yield return [type, 3, 1, (byte)(length >> 8), (byte)length, .. junk[..sent]];
        }

        // A ClientHello that says that it is 16 MB.
        yield return [22, 3, 1, 0x40, 0, 1, 0xFF, 0xFF, 0xFF, 3, 3, .. junk[..16_000]];
        yield return "GET / HTTP/1.1\r\nHost: a\r\n\r\n"u8.ToArray();
    }

    private static IEnumerable<byte[]> Http2Garbage(int seed)
    {
        var preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8.ToArray();
        var junk = TestData.Bytes(70_000, seed);
        yield return preface[..10];
        yield return preface;
        yield return [.. preface, .. junk];

        // Frame { length (24), type, flags, stream (32) } (RFC 9113, 4.1).
        for (byte type = 0; type < 12; type++)
        {
            foreach (var length in (int[])[0, 1, 9, 16_384, 0xFF_FFFF])
            {
                byte[] settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                byte[] header = [(byte)(length >> 16), (byte)(length >> 8), (byte)length, type, (byte)seed, 0, 0, 0, (byte)(type % 3)];
                yield return [.. preface, .. settings, .. header, .. junk[..Math.Min(length, junk.Length)]];
            }
        }
    }

    private static async Task SendAllKindsAsync(EndPoint endPoint, params IEnumerable<byte[]>[] garbage)
    {
        foreach (var batch in garbage.SelectMany(static bytes => bytes).Chunk(20))
        {
            await Task.WhenAll(batch.Select(async bytes =>
            {
                using var client = await SocketExtensions.ConnectAsync(endPoint);
                _ = await SendAndReceiveToAnyEndAsync(client, bytes);
            }));
        }
    }

    /// <returns>What came back; <see langword="null"/> after a reset.</returns>
    private static async Task<string?> SendAndReceiveToAnyEndAsync(Socket client, byte[] bytes)
    {
        try
        {
            await client.SendAllAsync(bytes).OrTimeout();
            client.Shutdown(SocketShutdown.Send);
            return Encoding.Latin1.GetString(await client.ReceiveToEndAsync().OrTimeout());
        }
        catch (SocketException exception) when (exception.SocketErrorCode is SocketError.ConnectionReset or SocketError.Shutdown or SocketError.NotConnected)
        {
            return null;
        }
    }

    private static async Task BurstsAsync(EndPoint endPoint, int bursts, int size)
    {
        for (var burst = 0; burst < bursts; burst++)
        {
            var clients = await Task.WhenAll(Enumerable.Range(0, size).Select(_ => SocketExtensions.ConnectAsync(endPoint)));
            for (var i = 0; i < size; i++)
            {
                using var client = clients[i];
                if (i % 4 > 1)
                {
                    await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf").OrTimeout();
                }

                if (i % 2 == 0)
                {
                    client.Reset();
                }
            }
        }
    }

    private static async Task UrgentDataAsync(EndPoint endPoint)
    {
        byte[] urgent = [0xFF];

        // One at a time it is no part of the stream (tcp(7)).
        using (var client = await SocketExtensions.ConnectAsync(endPoint))
        {
            for (var i = 0; i < 50; i++)
            {
                _ = await client.SendAsync(urgent, SocketFlags.OutOfBand).OrTimeout();
                await ExchangeAsync(client, TestData.Bytes(1000 * (1 + (i % 10)), seed: i));
            }
        }

        // In the middle of a body, and of nothing.
        using (var client = await SocketExtensions.ConnectAsync(endPoint))
        {
            var body = TestData.Bytes(20_000);
            await client.SendAllAsync($"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body.Length}\r\n\r\n").OrTimeout();
            await client.SendAllAsync(body.AsMemory(0, 10_000)).OrTimeout();
            _ = await client.SendAsync(urgent, SocketFlags.OutOfBand).OrTimeout();
            await client.SendAllAsync(body.AsMemory(10_000)).OrTimeout();
            await ReceiveHeadersAsync(client);
            TestData.AssertSame(body, await ReceiveChunkedAsync(client, body.Length));
            _ = await client.SendAsync(urgent, SocketFlags.OutOfBand).OrTimeout();
        }

        // Many at a time the stream has all but the last.
        using (var client = await SocketExtensions.ConnectAsync(endPoint))
        {
            for (var i = 0; i < 100; i++)
            {
                _ = await client.SendAsync(urgent, SocketFlags.OutOfBand).OrTimeout();
            }

            _ = await SendAndReceiveToAnyEndAsync(client, urgent);
        }
    }

    private static async Task ZeroWindowAsync(EndPoint endPoint)
    {
        var clients = await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => ConnectWithSmallWindowAsync(endPoint)));
        foreach (var client in clients)
        {
            await client.SendAllAsync("GET /large HTTP/1.0\r\n\r\n").OrTimeout();
        }

        await Eventually.SettlesAsync(() => clients.Min(static client => client.Available));
        foreach (var client in clients)
        {
            using (client)
            {
                await ReceiveHeadersAsync(client);
                TestData.AssertSame(TestData.Bytes(LargeSize), await client.ReceiveToEndAsync().OrTimeout());
            }
        }
    }

    private static async Task KeepAliveProbesAsync(EndPoint endPoint)
    {
        using var client = await SocketExtensions.ConnectAsync(endPoint, static socket =>
        {
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, 1);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, 1);
        });
        await ExchangeAsync(client, TestData.Bytes(1000));

        // The last acknowledgement is of a probe when it is half a second younger than the last data.
        await Eventually.HoldsAsync(() => LastReceived(client, DataOffset) - LastReceived(client, AcknowledgementOffset) > 500);
        await ExchangeAsync(client, TestData.Bytes(1000));
    }

    // struct tcp_info of linux/tcp.h: tcpi_last_data_recv, tcpi_last_ack_recv, in milliseconds.
    private const int DataOffset = 52;
    private const int AcknowledgementOffset = 56;

    private static int LastReceived(Socket client, int offset)
    {
        const int IPPROTO_TCP = 6;
        const int TCP_INFO = 11;
        var info = new byte[104];
        _ = client.GetRawSocketOption(IPPROTO_TCP, TCP_INFO, info);
        return BinaryPrimitives.ReadInt32LittleEndian(info.AsSpan(offset));
    }

    private static Task StormAsync(EndPoint endPoint, int seed) => Task.WhenAll(Enumerable.Range(0, 20).Select(number => Task.Run(async () =>
    {
        var random = new Random(seed + number);
        for (var i = 0; i < 50; i++)
        {
            using var client = await SocketExtensions.ConnectAsync(endPoint);
            await ExchangeAsync(client, TestData.Bytes(random.Next(1, 20_000), seed: (1000 * number) + i));
            if (random.Next(2) == 0)
            {
                // With a request on its way, whose answer must reach nobody.
                await client.SendAllAsync($"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n{new string('!', random.Next(3001))}").OrTimeout();
                client.Reset();
            }
        }
    })));

    private static Task<Socket> ConnectWithSmallWindowAsync(EndPoint endPoint) =>
        SocketExtensions.ConnectAsync(endPoint, static socket => socket.ReceiveBufferSize = SmallWindow);
}
