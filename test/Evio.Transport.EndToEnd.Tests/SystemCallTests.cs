using System.Net;
using System.Net.Http.Json;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Evio.Transport.Testing;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What the kernel is asked for each answer of an ordinary application, on both transports: counted, not timed.</summary>
public sealed class SystemCallTests(SystemCallTests.Servers servers) : IClassFixture<SystemCallTests.Servers>
{
    private const int Rounds = 60;
    private const int Pipelined = 16;
    private const int Streams = 32;

    // A machine that is busy adds calls: a thread that is held up in the middle of an answer is found to take long, and its first part leaves alone. So the least of some runs is what the answers
    // cost. To a client that asks one thing at a time no answer costs less than one send.
    private const int MaxRuns = 8;
    private const double Tolerance = 1.1;

    [Theory]
    [EvioTransports("/string", "/object", "POST /object", "/gzip", "/yield", "/delay", "/large")]
    public Task An_answer_is_sent_as_seldom_as_on_Sockets(TransportKind kind, string request) => CompareAsync(kind, request, server => GetAllAsync(server.Http, "http", request));

    [Theory]
    [EvioTransports("/string", "/object", "POST /object", "/yield", "/large")]
    public Task An_answer_over_TLS_is_sent_as_seldom_as_on_Sockets(TransportKind kind, string request) => CompareAsync(kind, $"{request} over TLS", server => GetAllAsync(server.Https, "https", request));

    [Theory, EvioTransports]
    public Task Pipelined_answers_are_sent_as_seldom_as_on_Sockets(TransportKind kind) => CompareAsync(kind, "pipelined", static server => PipelineAsync(server.Http, isTls: false));

    [Theory, EvioTransports]
    public Task Pipelined_answers_over_TLS_are_sent_as_seldom_as_on_Sockets(TransportKind kind) => CompareAsync(kind, "pipelined over TLS", static server => PipelineAsync(server.Https, isTls: true));

    /// <summary>How many are ready when Kestrel's writer has its turn is a matter of time, on both transports.</summary>
    [Theory]
    [EvioTransports("/string", "/yield")]
    public async Task Answers_over_HTTP2_are_sent_together(TransportKind kind, string request)
    {
        var answers = 0;
        await AssertLeastAsync(kind, async server => answers = await MultiplexAsync(server.Http2, request), calls =>
        {
            Assert.InRange(calls.Sends, 1, answers / 8);
            Assert.InRange(calls.Receives, 1, answers / 8);
        });
    }

    /// <summary>
    /// ASP.NET Core reads files on the thread pool, 16 KiB at a time, and flushes in between; over TLS it does that for each 4 KiB. How many of these come together is a matter of time, on both
    /// transports.
    /// </summary>
    [Theory]
    [EvioTransports("http/static/file", "http/file", "https/file")]
    public async Task A_file_is_sent_no_more_often_than_it_is_read(TransportKind kind, string request)
    {
        var scheme = request[..request.IndexOf('/', StringComparison.Ordinal)];
        var reads = (OrdinaryServer.FileLength / (16 * 1024)) + 1;
        await AssertLeastAsync(kind, server => GetAllAsync(scheme == "http" ? server.Http : server.Https, scheme, request[scheme.Length..]), calls =>
        {
            Assert.InRange(calls.Sends, Rounds, Rounds * reads * (scheme == "http" ? 1 : 2));
            Assert.InRange(calls.Receives, 1, Rounds * Tolerance);
        });
    }

    /// <summary>The first part leaves when the thread that calls the handler is through with it. The others are written on the pool, one right after the other, and leave together.</summary>
    [Theory, EvioTransports]
    public Task Streamed_items_are_sent_once_from_each_of_two_threads(TransportKind kind) => AssertLeastAsync(
        kind, static server => GetAllAsync(server.Http, "http", "/items"), static calls => Assert.InRange(calls.Sends, Rounds, 2 * Tolerance * Rounds));

    private async Task CompareAsync(TransportKind kind, string name, Func<OrdinaryServer, Task<int>> act)
    {
        var answers = 0;
        var sockets = await servers.ReferenceAsync(name, () => CountAsync(TransportKind.Sockets, Act));
        await AssertLeastAsync(kind, Act, evio =>
        {
            TestContext.Current.SendDiagnosticMessage("{0} {1}, {2} answers: {3}, Sockets {4}", kind, name, answers, evio, sockets);
            Assert.InRange(evio.Sends, 1, sockets.Sends * Tolerance);
            Assert.InRange(evio.Receives, 1, sockets.Receives * Tolerance);
            Assert.InRange(evio.WakeUps, 0, answers * Tolerance);
        });

        async Task Act(OrdinaryServer server) => answers = await act(server);
    }

    private async Task AssertLeastAsync(TransportKind kind, Func<OrdinaryServer, Task> act, Action<SystemCalls> assert)
    {
        for (var runs = 1; ; runs++)
        {
            var calls = await CountAsync(kind, act);
            try
            {
                assert(calls);
                return;
            }
            catch (Xunit.Sdk.InRangeException) when (runs < MaxRuns)
            {
                // The next one may be undisturbed.
            }
        }
    }

    private async Task<SystemCalls> CountAsync(TransportKind kind, Func<OrdinaryServer, Task> act)
    {
        Assert.SkipUnless(
            (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(static path => File.Exists(Path.Combine(path, "strace"))), "There is no strace.");
        var server = await servers.GetAsync(kind);

        // Once before, so that everything has been called.
        await act(server);
        return await server.CountAsync(() => act(server));
    }

    private static async Task<int> GetAllAsync(int port, string scheme, string request)
    {
        using var client = new HttpClient(new SocketsHttpHandler
        {
            MaxConnectionsPerServer = 1,
            SslOptions = { RemoteCertificateValidationCallback = IsTheServers },
        });
        client.DefaultRequestHeaders.AcceptEncoding.ParseAdd("gzip");
        var isPost = request.StartsWith("POST ", StringComparison.Ordinal);
        var uri = new Uri($"{scheme}://127.0.0.1:{port}{request[request.IndexOf('/', StringComparison.Ordinal)..]}");
        for (var i = 0; i < Rounds; i++)
        {
            using var response = await (isPost ? client.PostAsJsonAsync(uri, new { Id = 1, Name = "one" }) : client.GetAsync(uri)).OrTimeout();
            Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        }

        return Rounds;
    }

    private static async Task<int> PipelineAsync(int port, bool isTls)
    {
        using var socket = await Testing.SocketExtensions.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port));
        await using var stream = isTls ? await AuthenticateAsync(socket) : new NetworkStream(socket);
        var request = Encoding.ASCII.GetBytes("GET /string HTTP/1.1\r\nHost: a\r\n\r\n");
        var length = await ReceiveAnswersAsync(stream, request, 1);
        for (var i = 0; i < Rounds; i++)
        {
            Assert.Equal(Pipelined * length, await ReceiveAnswersAsync(stream, [.. Enumerable.Repeat(request, Pipelined).SelectMany(static bytes => bytes)], Pipelined));
        }

        return Rounds * Pipelined;
    }

    private static async Task<Stream> AuthenticateAsync(Socket socket)
    {
        var stream = new SslStream(new NetworkStream(socket), leaveInnerStreamOpen: false, IsTheServers);
        await stream.AuthenticateAsClientAsync("localhost").OrTimeout();
        return stream;
    }

    /// <summary>The server's certificate is made in its own process, and has the name of the one here.</summary>
    private static bool IsTheServers(object sender, X509Certificate? certificate, X509Chain? chain, SslPolicyErrors errors) => certificate?.Subject == TestCertificate.Instance.Subject;

    /// <summary>Sends requests, and receives as many answers.</summary>
    /// <returns>Their length.</returns>
    private static async Task<int> ReceiveAnswersAsync(Stream stream, byte[] requests, int count)
    {
        await stream.WriteAsync(requests).AsTask().OrTimeout();
        var buffer = new byte[64 * 1024];
        var length = 0;
        while (Encoding.ASCII.GetString(buffer, 0, length).Split("HTTP/1.1 200 OK").Length <= count || !buffer.AsSpan(0, length).EndsWith("\r\n0\r\n\r\n"u8))
        {
            var received = await stream.ReadAsync(buffer.AsMemory(length)).AsTask().OrTimeout();
            Assert.NotEqual(0, received);
            length += received;
        }

        return length;
    }

    private static async Task<int> MultiplexAsync(int port, string request)
    {
        using var client = new HttpClient { DefaultRequestVersion = HttpVersion.Version20, DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact };
        var uri = new Uri($"http://127.0.0.1:{port}{request}");
        _ = await client.GetStringAsync(uri).OrTimeout();
        for (var i = 0; i < Rounds / 4; i++)
        {
            await Task.WhenAll(Enumerable.Range(0, Streams).Select(_ => client.GetStringAsync(uri))).OrTimeout();
        }

        return Rounds / 4 * Streams;
    }

    /// <summary>A server on each transport, started when it is first needed, and what was counted on Sockets.</summary>
    public sealed class Servers : IAsyncDisposable
    {
        private readonly Dictionary<TransportKind, OrdinaryServer> _servers = [];
        private readonly Dictionary<string, SystemCalls> _references = [];

        internal async Task<OrdinaryServer> GetAsync(TransportKind kind) =>
            _servers.TryGetValue(kind, out var server) ? server : _servers[kind] = await OrdinaryServer.StartAsync(kind);

        internal async Task<SystemCalls> ReferenceAsync(string name, Func<Task<SystemCalls>> count) =>
            _references.TryGetValue(name, out var calls) ? calls : _references[name] = await count();

        public async ValueTask DisposeAsync()
        {
            foreach (var server in _servers.Values)
            {
                await server.DisposeAsync();
            }
        }
    }
}
