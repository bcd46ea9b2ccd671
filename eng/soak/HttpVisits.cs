using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Evio.Soak;

/// <summary>Clients of HTTP/1.1, HTTP/2, TLS and WebSocket that behave.</summary>
internal static class HttpVisits
{
    private static readonly byte[] Hello = "Hello, World!"u8.ToArray();
    private static readonly byte[] Json = """{"message":"Hello, World!"}"""u8.ToArray();
    private static readonly byte[] Noise = CreateNoise();

    public static async Task KeepAliveAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http);
        for (var left = visit.Random.Next(1, 50); left >= 0; left--)
        {
            var (path, body) = Simple(visit.Random);
            await wire.SendInPiecesAsync(Get(path, close: left == 0), visit.Random, visit.Cancellation);
            Check(visit, await wire.ReadReplyAsync(visit.Cancellation), body);
        }

        await wire.ExpectEndAsync(visit.Cancellation);
    }

    public static async Task PipelinedAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http);
        for (var left = visit.Random.Next(1, 6); left >= 0; left--)
        {
            var requests = new MemoryStream();
            var bodies = new List<byte[]>();
            for (var count = visit.Random.Next(1, 40); count > 0; count--)
            {
                var (path, body) = Simple(visit.Random);
                requests.Write(Get(path));
                bodies.Add(body);
            }

            var sending = wire.SendInPiecesAsync(requests.ToArray(), visit.Random, visit.Cancellation);
            foreach (var body in bodies)
            {
                Check(visit, await wire.ReadReplyAsync(visit.Cancellation), body);
            }

            await sending;
        }
    }

    public static async Task StreamedAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http);
        for (var left = visit.Random.Next(1, 4); left > 0; left--)
        {
            var (chunks, bytes) = (visit.Random.Next(0, 100), visit.Random.Next(1, 5000));
            await wire.SendAsync(Get($"/stream?chunks={chunks}&bytes={bytes}&delayMs={(visit.Random.Next(4) == 0 ? 1 : 0)}"), visit.Cancellation);
            var expected = new byte[chunks * bytes];
            for (var chunk = 0; chunk < chunks; chunk++)
            {
                expected.AsSpan(chunk * bytes, bytes).Fill((byte)('a' + (chunk % 26)));
            }

            Check(visit, await wire.ReadReplyAsync(visit.Cancellation), expected);
        }
    }

    public static async Task UploadAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http);
        for (var left = visit.Random.Next(1, 5); left > 0; left--)
        {
            var body = visit.Bytes(visit.Size(1024 * 1024));
            await wire.SendInPiecesAsync(Post("/upload", body, visit.Random), visit.Random, visit.Cancellation);
            CheckReceipt(visit, await wire.ReadReplyAsync(visit.Cancellation), body);
        }
    }

    public static async Task EchoAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http);
        for (var left = visit.Random.Next(1, 4); left > 0; left--)
        {
            // It comes back while it is being sent, so both go on at once.
            var body = visit.Bytes(visit.Size(1024 * 1024));
            var sending = wire.SendInPiecesAsync(Post("/echo", body, visit.Random), visit.Random, visit.Cancellation);
            var reply = await wire.ReadReplyAsync(visit.Cancellation);
            await sending;
            Check(visit, reply, body);
        }
    }

    public static async Task SlowReaderAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http, receiveBuffer: 8 * 1024);
        var length = visit.Random.Next(1, 3 * 1024 * 1024);
        await wire.SendAsync(Get($"/large?bytes={length}"), visit.Cancellation);
        var (status, told) = await wire.ReadHeadAsync(visit.Cancellation);
        if (status != 200 || told != length)
        {
            throw new SoakException($"status {status} and {told} bytes instead of {length}");
        }

        var (buffer, piece) = (new byte[64 * 1024], (byte[])Noise.Clone());
        for (var got = 0; got < length;)
        {
            if (visit.Random.Next(50) == 0)
            {
                await Task.Delay(visit.Random.Next(30), visit.Cancellation);
            }

            // Not beyond this piece's end.
            BinaryPrimitives.WriteInt64LittleEndian(piece, got / piece.Length);
            var most = Math.Min(Math.Min(visit.Random.Next(1, buffer.Length), length - got), piece.Length - (got % piece.Length));
            var count = await wire.ReadAsync(buffer.AsMemory(0, most), visit.Cancellation);
            if (count == 0)
            {
                throw new ConnectionEndException(got, length);
            }

            Wire.Compare(piece.AsSpan(got % piece.Length, count), buffer.AsSpan(0, count));
            got += count;
        }

        visit.Tally.Verified(length);
    }

    /// <summary>Ends its side when it has asked. Kestrel takes that for the end of its interest, but what it does answer has to be right.</summary>
    public static async Task HalfCloseAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http);
        var body = visit.Bytes(visit.Size(200_000));
        var (path, hello) = Simple(visit.Random);
        try
        {
            await wire.SendInPiecesAsync(Get(path), visit.Random, visit.Cancellation);
            await wire.SendInPiecesAsync(Post("/upload", body, visit.Random), visit.Random, visit.Cancellation);
            wire.ShutdownSend();
            visit.Tally.Fault();
            Check(visit, await wire.ReadReplyAsync(visit.Cancellation), hello);
            CheckReceipt(visit, await wire.ReadReplyAsync(visit.Cancellation), body);
            await wire.ExpectEndAsync(visit.Cancellation);
        }
        catch (Exception end) when (end is ConnectionEndException or SocketException { SocketErrorCode: SocketError.ConnectionReset })
        {
            // With an answer less.
        }
    }

    public static Task Http2Async(Visit visit) => AskAsync(visit, visit.Server.H2c, "http", HttpVersion.Version20);

    public static Task HttpsAsync(Visit visit) => AskAsync(visit, visit.Server.Https, "https", HttpVersion.Version11);

    public static Task HttpsHttp2Async(Visit visit) => AskAsync(visit, visit.Server.Https, "https", HttpVersion.Version20);

    public static async Task WebSocketAsync(Visit visit)
    {
        using var socket = await OpenWebSocketAsync(visit);
        for (var left = visit.Random.Next(1, 20); left > 0; left--)
        {
            var message = visit.Bytes(visit.Size(200_000));
            var sending = socket.SendAsync(message.AsMemory(), WebSocketMessageType.Binary, true, visit.Cancellation);
            var got = new byte[message.Length + 1];
            var length = 0;
            ValueWebSocketReceiveResult result;
            do
            {
                result = await socket.ReceiveAsync(got.AsMemory(length), visit.Cancellation);
                length += result.Count;
            }
            while (!result.EndOfMessage && length < got.Length);
            await sending;
            Wire.Compare(message, got.AsSpan(0, length));
            visit.Tally.Verified(length);
        }

        await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "", visit.Cancellation);
    }

    public static async Task<ClientWebSocket> OpenWebSocketAsync(Visit visit)
    {
        var socket = new ClientWebSocket();
        try
        {
            await socket.ConnectAsync(new Uri($"ws://127.0.0.1:{visit.Server.Http}/ws"), visit.Cancellation);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    public static HttpClient CreateClient(int port, string scheme, Version version) => new(new SocketsHttpHandler
    {
        UseProxy = false,
        UseCookies = false,
        // The sample's certificate is made anew in each process, and trusted by nobody.
        SslOptions = { RemoteCertificateValidationCallback = static (_, certificate, _, _) => certificate?.Subject == "CN=localhost" },
    })
    {
        BaseAddress = new Uri($"{scheme}://127.0.0.1:{port}"),
        DefaultRequestVersion = version,
        DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact,
        Timeout = Timeout.InfiniteTimeSpan,
    };

    public static (string Path, byte[] Body) Simple(Random random) => random.Next(2) == 0 ? ("/plaintext", Hello) : ("/json", Json);

    public static byte[] Get(string path, bool close = false) =>
        Encoding.ASCII.GetBytes($"GET {path} HTTP/1.1\r\nHost: soak\r\n{(close ? "Connection: close\r\n" : "")}\r\n");

    /// <summary>A body with its length in front, or in chunks of any sizes.</summary>
    public static byte[] Post(string path, byte[] body, Random random)
    {
        using var request = new MemoryStream();
        if (random.Next(2) == 0)
        {
            Write($"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Length: {body.Length}\r\n\r\n");
            request.Write(body);
            return request.ToArray();
        }

        Write($"POST {path} HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (var at = 0; at < body.Length;)
        {
            var size = Math.Min(body.Length - at, random.Next(1, 20_000));
            Write(string.Create(CultureInfo.InvariantCulture, $"{size:x}\r\n"));
            request.Write(body, at, size);
            Write("\r\n");
            at += size;
        }

        Write("0\r\n\r\n");
        return request.ToArray();

        void Write(string text) => request.Write(Encoding.ASCII.GetBytes(text));
    }

    /// <summary>Several requests at a time, over one client.</summary>
    private static async Task AskAsync(Visit visit, int port, string scheme, Version version)
    {
        using var client = CreateClient(port, scheme, version);
        for (var left = visit.Random.Next(1, 4); left > 0; left--)
        {
            var asked = new List<Task>();
            for (var count = visit.Random.Next(1, 6); count > 0; count--)
            {
                asked.Add(visit.Random.Next(3) switch
                {
                    0 => UploadAsync(visit.Bytes(visit.Size(300_000))),
                    1 => EchoAsync(visit.Bytes(visit.Size(300_000))),
                    _ => GetAsync(Simple(visit.Random)),
                });
            }

            await Task.WhenAll(asked);
        }

        async Task GetAsync((string Path, byte[] Body) simple) =>
            Check(visit, new Reply(200, await client.GetByteArrayAsync(simple.Path, visit.Cancellation)), simple.Body);

        async Task UploadAsync(byte[] body) => CheckReceipt(visit, await PostAsync("/upload", body), body);

        async Task EchoAsync(byte[] body) => Check(visit, await PostAsync("/echo", body), body);

        async Task<Reply> PostAsync(string path, byte[] body)
        {
            using var content = new ByteArrayContent(body);
            using var response = await client.PostAsync(path, content, visit.Cancellation);
            return new Reply((int)response.StatusCode, await response.Content.ReadAsByteArrayAsync(visit.Cancellation));
        }
    }

    public static void Check(Visit visit, Reply reply, byte[] body)
    {
        if (reply.Status != 200)
        {
            throw new SoakException($"status {reply.Status}");
        }

        Wire.Compare(body, reply.Body);
        visit.Tally.Verified(body.Length);
    }

    private static void CheckReceipt(Visit visit, Reply reply, byte[] body)
    {
        using var receipt = JsonDocument.Parse(reply.Body);
        var (length, hash) = (receipt.RootElement.GetProperty("length").GetInt64(), receipt.RootElement.GetProperty("sha256").GetString());
        if (reply.Status != 200 || length != body.Length || hash != Convert.ToHexStringLower(SHA256.HashData(body)))
        {
            throw new SoakException($"{body.Length} bytes were sent; the server answers {reply.Status}, {length} and {hash}");
        }

        visit.Tally.Verified(body.Length);
    }

    /// <summary>What /large consists of, its pieces' numbers left out.</summary>
    private static byte[] CreateNoise()
    {
        var noise = new byte[32 * 1024];
        new Random(Seed: 1).NextBytes(noise);
        return noise;
    }
}
