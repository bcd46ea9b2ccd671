using System.Buffers.Binary;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Evio.Transport.Testing;

namespace Evio.Transport.Ecosystem.Tests;

/// <summary>The sample, compiled to native code ahead of time, does what it does under the runtime.</summary>
public sealed class AotSampleTests
{
    private const string Hello = "Hello, World!";

    [Theory, AllTransports]
    public async Task It_is_native_code_on_the_chosen_transport(TransportKind kind)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var client = AotSample.CreateClient(sample.Http, HttpVersion.Version11);

        var info = await client.GetFromJsonAsync<JsonElement>("/info").OrTimeout();

        Assert.False(File.Exists(AotSample.Path + ".dll"));
        Assert.Equal(sample.ProcessId, info.GetProperty("processId").GetInt32());
        Assert.Equal(kind.IsEvio() ? "evio" : "sockets", info.GetProperty("transport").GetString());
        Assert.Equal(kind == TransportKind.EvioThreadPool ? "threadpool" : "inline", info.GetProperty("scheduling").GetString());
        Assert.Equal(kind.IsEvio() ? Environment.ProcessorCount : 0, info.GetProperty("loops").GetArrayLength());
    }

    [Theory, AllTransports]
    public async Task Plaintext_and_JSON_are_answered(TransportKind kind)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var client = AotSample.CreateClient(sample.Http, HttpVersion.Version11);

        Assert.Equal(Hello, await client.GetStringAsync("/plaintext").OrTimeout());
        Assert.Equal($$"""{"message":"{{Hello}}"}""", await client.GetStringAsync("/json").OrTimeout());
    }

    /// <summary>What the framework finds out about a handler at run time has to be found by the compiler here: its binding, its JSON.</summary>
    [Theory, AllTransports("/string", "/object", "/stream-objects", "/compressed", "/file", "/static/8k.txt", "/yield", "/delay?ms=1", "/call-out", "/call-out-evio")]
    public async Task Ordinary_handlers_answer(TransportKind kind, string path)
    {
        const string Line = "0123456789abcde\n";
        var expected = path switch
        {
            "/object" => $$"""{"id":1,"customer":"Ada","products":{{Products(3)}}}""",
            "/stream-objects" => Products(20),
            "/compressed" => Products(100),
            "/file" => string.Concat(Enumerable.Repeat(Line, 12_800)),
            "/static/8k.txt" => string.Concat(Enumerable.Repeat(Line, 512)),
            "/yield" => "yielded",
            "/delay?ms=1" => "delayed",
            _ => Hello,
        };
        await using var sample = await AotSample.StartAsync(kind);
        using var client = AotSample.CreateClient(sample.Http, HttpVersion.Version11);

        Assert.Equal(expected, await client.GetStringAsync(path).OrTimeout());

        static string Products(int count) => JsonSerializer.Serialize(
            Enumerable.Range(1, count).Select(static id => new { Id = id, Name = $"Product number {id}", Price = id + 0.99m }), JsonSerializerOptions.Web);
    }

    [Theory, AllTransports]
    public async Task An_object_comes_back(TransportKind kind)
    {
        const string Order = """{"id":7,"customer":"Grace","products":[{"id":1,"name":"Product","price":1.99}]}""";
        await using var sample = await AotSample.StartAsync(kind);
        using var client = AotSample.CreateClient(sample.Http, HttpVersion.Version11);

        using var response = await client.PostAsync("/object", new StringContent(Order, Encoding.UTF8, "application/json")).OrTimeout();

        Assert.Equal(Order, await response.Content.ReadAsStringAsync().OrTimeout());
    }

    [Theory, AllTransports("http", "h2c", "https/1.1", "https/2.0")]
    public async Task Bodies_go_up_and_down_whole(TransportKind kind, string protocol)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var client = protocol switch
        {
            "http" => AotSample.CreateClient(sample.Http, HttpVersion.Version11),
            "h2c" => AotSample.CreateClient(sample.H2c, HttpVersion.Version20),
            _ => AotSample.CreateClient(sample.Https, Version.Parse(protocol[^3..])),
        };
        var sent = TestData.Bytes(3_000_001);

        // No more than fits into HTTP/2's first window: the client sends such a content whole before it reads the answer.
        var small = sent[..60_000];
        using var echo = await client.PostAsync("/echo", new ByteArrayContent(small)).OrTimeout();
        TestData.AssertSame(small, await echo.Content.ReadAsByteArrayAsync().OrTimeout());

        using var upload = await client.PostAsync("/upload", new ByteArrayContent(sent)).OrTimeout();
        var receipt = await upload.Content.ReadFromJsonAsync<JsonElement>().OrTimeout();
        Assert.Equal(sent.Length, receipt.GetProperty("length").GetInt64());
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(sent)), receipt.GetProperty("sha256").GetString());

        TestData.AssertSame(Large(5_000_000), await client.GetByteArrayAsync("/large?bytes=5000000").OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Streams_and_events_arrive(TransportKind kind)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var client = AotSample.CreateClient(sample.Http, HttpVersion.Version11);

        var stream = await client.GetStringAsync("/stream?chunks=30&bytes=100").OrTimeout();
        var events = await client.GetStringAsync("/sse?count=5&delayMs=1").OrTimeout();

        Assert.Equal(string.Concat(Enumerable.Range(0, 30).Select(static i => new string((char)('a' + (i % 26)), 100))), stream);
        Assert.Equal(string.Concat(Enumerable.Range(0, 5).Select(static i => $"id: {i}\ndata: event {i}\n\n")), events);
    }

    [Theory, AllTransports]
    public async Task WebSocket_messages_come_back(TransportKind kind)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var socket = new ClientWebSocket();
        await socket.ConnectAsync(new UriBuilder(sample.Http) { Scheme = "ws", Path = "/ws" }.Uri, default).OrTimeout();
        var buffer = new byte[10_000];
        for (var i = 0; i < 20; i++)
        {
            var sent = TestData.Bytes(i * 100, seed: i);
            await socket.SendAsync(sent, WebSocketMessageType.Binary, endOfMessage: true, default).OrTimeout();
            var result = await socket.ReceiveAsync(buffer.AsMemory(), default).OrTimeout();
            Assert.True(result.EndOfMessage);
            TestData.AssertSame(sent, buffer.AsMemory(0, result.Count));
        }

        await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "done", default).OrTimeout();
        Assert.Equal("done", socket.CloseStatusDescription);
    }

    [Theory, AllTransports("--raw-port", "--echo-port")]
    public async Task A_TCP_echo_gives_back_every_byte(TransportKind kind, string port)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var socket = await SocketExtensions.ConnectAsync(sample.EndPointOf(port));
        var sent = TestData.Bytes(2_000_000);

        var sending = socket.SendAllAsync(sent);
        TestData.AssertSame(sent, await socket.ReceiveExactlyAsync(sent.Length).OrTimeout());

        await sending.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task The_UDP_echo_gives_back_datagrams(TransportKind kind)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        await socket.ConnectAsync(sample.EndPointOf("--udp-echo-port")).OrTimeout();
        var buffer = new byte[10_000];
        for (var i = 1; i <= 20; i++)
        {
            var sent = TestData.Bytes(i * 50, seed: i);
            await socket.SendAsync(sent).OrTimeout();
            TestData.AssertSame(sent, buffer.AsMemory(0, await socket.ReceiveAsync(buffer).OrTimeout()));
        }
    }

    [Theory, AllTransports]
    public async Task The_HTTP_responder_of_the_callback_API_answers(TransportKind kind)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var client = AotSample.CreateClient(new Uri($"http://{sample.EndPointOf("--native-http-port")}/"), HttpVersion.Version11);

        Assert.Equal(Hello, await client.GetStringAsync("/").OrTimeout());
    }

    [Theory, AllTransports]
    public async Task The_little_Redis_keeps_a_value(TransportKind kind)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var socket = await SocketExtensions.ConnectAsync(sample.EndPointOf("--redis-port"));
        const string Answers = "+PONG\r\n+OK\r\n$5\r\nvalue\r\n$-1\r\n";

        await socket.SendAllAsync(
            "*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n*2\r\n$3\r\nGET\r\n$1\r\nx\r\n").OrTimeout();

        Assert.Equal(Answers, Encoding.ASCII.GetString(await socket.ReceiveExactlyAsync(Answers.Length).OrTimeout()));
    }

    [Theory, AllTransports]
    public async Task SIGTERM_ends_it_with_code_0_whoever_is_connected(TransportKind kind)
    {
        await using var sample = await AotSample.StartAsync(kind);
        using var client = AotSample.CreateClient(sample.Http, HttpVersion.Version11);
        Assert.Equal(Hello, await client.GetStringAsync("/plaintext").OrTimeout());
        using var raw = await SocketExtensions.ConnectAsync(sample.EndPointOf("--raw-port"));
        using var native = await SocketExtensions.ConnectAsync(sample.EndPointOf("--echo-port"));
        await raw.SendAllAsync("x").OrTimeout();
        await raw.ReceiveExactlyAsync(1).OrTimeout();
        await native.SendAllAsync("x").OrTimeout();
        await native.ReceiveExactlyAsync(1).OrTimeout();

        var code = await sample.TerminateAsync();

        Assert.True(code == 0, $"Exit code {code}\n{sample.Output}");
        Assert.Empty(await native.ReceiveToEndAsync().OrTimeout());
        Assert.DoesNotContain("fail:", sample.Output, StringComparison.Ordinal);
    }

    /// <summary>What /large answers.</summary>
    private static byte[] Large(int count)
    {
        const int PieceSize = 32 * 1024;
        var piece = TestData.Bytes(PieceSize);
        using var all = new MemoryStream();
        for (var number = 0L; all.Length < count; number++)
        {
            BinaryPrimitives.WriteInt64LittleEndian(piece, number);
            all.Write(piece, 0, (int)Math.Min(PieceSize, count - all.Length));
        }

        return all.ToArray();
    }
}
