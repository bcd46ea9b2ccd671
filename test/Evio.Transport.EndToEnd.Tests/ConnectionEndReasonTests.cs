using System.Net.Security;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>
/// How a connection ends for its client, and the <c>error.type</c> with which Kestrel measures it (<c>kestrel.connection.duration</c>). That depends on the
/// exceptions and tokens of the transport being exact.
/// </summary>
public sealed class ConnectionEndReasonTests
{
    private const string Get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    private const string Post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";

    // The shortest that Kestrel, which looks once a second, permits.
    private static readonly MinDataRate HighRate = new(bytesPerSecond: 1_000_000_000, TimeSpan.FromSeconds(1.01));

    private static readonly Dictionary<string, Ending> Endings = new()
    {
        ["FIN before a request"] = new(null, Leave(string.Empty, reset: false)),
        ["RST before a request"] = new(null, Leave(string.Empty, reset: true)),
        ["FIN after an answer"] = new(null, LeaveAfterAnswer(reset: false)),
        ["RST after an answer"] = new(null, LeaveAfterAnswer(reset: true)),
        ["FIN in the request line"] = new("invalid_request_line", Leave("GET / HT", reset: false)),
        ["RST in the request line"] = new(null, Leave("GET / HT", reset: true)),
        ["FIN in the headers"] = new("invalid_request_headers", Leave("GET / HTTP/1.1\r\nHos", reset: false)),
        ["RST in the headers"] = new(null, Leave("GET / HTTP/1.1\r\nHos", reset: true)),
        ["FIN in a body that is read"] = new("unexpected_end_of_request_content", LeaveInside(Post + "half", reset: false), ReadBodyAsync),
        // (After RST, on every transport Kestrel's body reader and its own abort race for naming the reason.)
        ["FIN while the application waits"] = new(null, LeaveInside(Get, reset: false), WaitForAbortAsync),
        ["RST while the application waits"] = new(null, LeaveInside(Get, reset: true), WaitForAbortAsync),
        ["Connection: close of the client"] = new(null, FinishesAsync("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200")),
        ["Connection: close of the application"] = new(null, FinishesAsync(Get, "HTTP/1.1 200"), static context =>
        {
            context.Response.Headers.Connection = "close";
            return Task.CompletedTask;
        }),
        ["HTTP/1.0"] = new(null, FinishesAsync("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200")),
        ["the application aborts"] = new("aborted_by_app", ResetsAsync(Get), static context =>
        {
            context.Abort();
            return Task.CompletedTask;
        }),
        ["the application fails after the start"] = new("error_after_starting_response", FinishesAsync(Get, "HTTP/1.1 200"), static async context =>
        {
            await context.Response.Body.FlushAsync();
            throw new InvalidTimeZoneException();
        }),
        ["a malformed request line"] = new("invalid_request_line", FinishesAsync("nonsense\r\n\r\n", "HTTP/1.1 400")),
        ["malformed headers"] = new("invalid_request_headers", FinishesAsync("GET / HTTP/1.1\r\nHost a\r\n\r\n", "HTTP/1.1 400")),
        ["no host"] = new("invalid_request_headers", FinishesAsync("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400")),
        ["an unknown version"] = new("invalid_http_version", FinishesAsync("GET / HTTP/9.9\r\nHost: a\r\n\r\n", "HTTP/1.1 505")),
        ["a request line that is too long"] = new(
            "invalid_request_line",
            FinishesAsync($"GET /{new string('x', 5000)} HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 414"),
            Settings: new HostSettings { Kestrel = static options => options.Limits.MaxRequestLineSize = 1000 }),
        ["headers that are too large"] = new(
            "max_request_headers_total_size_exceeded",
            FinishesAsync($"GET / HTTP/1.1\r\nHost: a\r\nx: {new string('x', 5000)}\r\n\r\n", "HTTP/1.1 431"),
            Settings: new HostSettings { Kestrel = static options => options.Limits.MaxRequestHeadersTotalSize = 1000 }),
        ["a body that is too large"] = new(
            "max_request_body_size_exceeded",
            FinishesAsync(Post, "HTTP/1.1 413"),
            static context => context.Request.Body.CopyToAsync(Stream.Null),
            new HostSettings { Kestrel = static options => options.Limits.MaxRequestBodySize = 10 }),
        ["a malformed chunk"] = new(
            "other_error",
            FinishesAsync("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 400"),
            static context => context.Request.Body.CopyToAsync(Stream.Null)),
        ["the keep-alive time-out"] = new(
            "keep_alive_timeout",
            AnswersAndFinishesAsync,
            Settings: new HostSettings { Kestrel = static options => options.Limits.KeepAliveTimeout = TimeSpan.FromMilliseconds(100) }),
        ["the time-out of the headers"] = new(
            "request_headers_timeout",
            FinishesAsync("GET / HTTP/1.1\r\nHos", "HTTP/1.1 408"),
            Settings: new HostSettings { Kestrel = static options => options.Limits.RequestHeadersTimeout = TimeSpan.FromMilliseconds(100) }),
        ["a body that comes too slowly"] = new(
            "min_request_body_data_rate",
            FinishesAsync(Post + "half", "HTTP/1.1 408"),
            static context => context.Request.Body.CopyToAsync(Stream.Null),
            new HostSettings { Kestrel = static options => options.Limits.MinRequestBodyDataRate = HighRate }),
        ["an answer that is taken too slowly"] = new(
            "min_response_data_rate",
            NeverReadsAsync(static host => host.ConnectAsync(static socket => socket.ReceiveBufferSize = 32 * 1024)),
            static context => Applications.WriteUntilAbortedAsync(context),
            new HostSettings { Kestrel = static options => options.Limits.MinResponseDataRate = HighRate }),
        ["a large answer in one write that is taken too slowly"] = new(
            "min_response_data_rate",
            NeverReadsAsync(static host => host.ConnectAsync(static socket => socket.ReceiveBufferSize = 32 * 1024)),
            static context => context.Response.Body.WriteAsync(new byte[20_000_000]).AsTask(),
            new HostSettings { Kestrel = static options => options.Limits.MinResponseDataRate = HighRate }),
        ["a stop between requests"] = new(null, static async host =>
        {
            using var client = await host.ConnectAsync();
            await AnswerAsync(client);
            await host.StopAsync().OrTimeout();
            Assert.Empty(await client.ReceiveToEndAsync().OrTimeout());
        }),
        ["a stop that runs out of time"] = new(
            "app_shutdown_timeout",
            static async host =>
            {
                using var client = await host.ConnectAsync();
                await client.SendAllAsync(Get).OrTimeout();
                await host.Services.GetRequiredService<Entrance>().Task.OrTimeout();
                await host.StopAsync(new CancellationToken(canceled: true)).OrTimeout();
                Assert.Equal(SocketError.ConnectionReset, await client.ReceiveErrorAsync().OrTimeout());
            },
            WaitForAbortAsync),
        ["an upgraded connection that the application ends"] = new(null, UpgradesAndFinishesAsync, UpgradeAsync),
        ["FIN before the TLS handshake"] = new("tls_handshake_failed", Leave(string.Empty, reset: false), Settings: HostSettings.Https),
        ["FIN in the TLS handshake"] = new("tls_handshake_failed", Leave("\x16\x03\x01", reset: false), Settings: HostSettings.Https),
        ["RST in the TLS handshake"] = new("tls_handshake_failed", Leave("\x16\x03\x01", reset: true), Settings: HostSettings.Https),
        ["plain HTTP to an HTTPS port"] = new("tls_handshake_failed", FinishesAsync(Get, string.Empty), Settings: HostSettings.Https),
        ["the time-out of the TLS handshake"] = new(
            "tls_handshake_failed",
            FinishesAsync(string.Empty, string.Empty),
            Settings: new HostSettings
            {
                Listen = static listen => listen.UseHttps(static https =>
                {
                    https.ServerCertificate = TestCertificate.Instance;
                    https.HandshakeTimeout = TimeSpan.FromMilliseconds(100);
                }),
            }),
        ["no client certificate where one is demanded"] = new(
            "tls_handshake_failed",
            static async host =>
            {
                await using var stream = await TlsAsync(host, new SslClientAuthenticationOptions());
                await Assert.ThrowsAnyAsync<IOException>(() => ExchangeAsync(stream).OrTimeout());
            },
            Settings: new HostSettings
            {
                Listen = static listen => listen.UseHttps(static https =>
                {
                    https.ServerCertificate = TestCertificate.Instance;
                    https.ClientCertificateMode = ClientCertificateMode.RequireCertificate;
                }),
            }),
        ["an orderly end of TLS"] = new(null, static async host =>
        {
            await using var stream = await TlsAsync(host, new SslClientAuthenticationOptions());
            Assert.StartsWith("HTTP/1.1 200", await ExchangeAsync(stream).OrTimeout(), StringComparison.Ordinal);
            await stream.ShutdownAsync().OrTimeout();
        }, Settings: HostSettings.Https),
        ["FIN without an end of TLS"] = new(null, LeaveTlsAsync(reset: false), Settings: HostSettings.Https),
        ["RST over TLS"] = new(null, LeaveTlsAsync(reset: true), Settings: HostSettings.Https),
        ["FIN of an HTTP/2 connection"] = new(null, LeaveHttp2Async(reset: false), Settings: HostSettings.Http2),
        ["RST of an HTTP/2 connection"] = new(null, LeaveHttp2Async(reset: true), Settings: HostSettings.Http2),
        ["HTTP/1.1 to an HTTP/2 port"] = new("invalid_http_version", FinishesAsync(Get, "HTTP/1.1 400"), Settings: HostSettings.Http2),
        ["a GOAWAY of the client"] = new(null, static async host =>
        {
            using var client = await RawHttp2Client.ConnectAsync(host);
            await client.SendAsync(RawHttp2Client.FrameType.GoAway, 0, 0, new byte[8]);
            await client.Socket.ReceiveToEndAsync().OrTimeout();
        }, Settings: HostSettings.Http2),
        ["an HTTP/2 error of the client"] = new("invalid_stream_id", static async host =>
        {
            using var client = await RawHttp2Client.ConnectAsync(host);
            await client.SendAsync(RawHttp2Client.FrameType.Data, 0, 1, []);
            await client.Socket.ReceiveToEndAsync().OrTimeout();
        }, Settings: HostSettings.Http2),
        ["a stop of an HTTP/2 connection"] = new(null, static async host =>
        {
            using var client = await RawHttp2Client.ConnectAsync(host);
            await host.StopAsync().OrTimeout();
            await client.Socket.ReceiveToEndAsync().OrTimeout();
        }, Settings: HostSettings.Http2),
    };

    public static TheoryData<TransportKind, string> Cases =>
        [.. Enum.GetValues<TransportKind>().SelectMany(static kind => Endings.Keys.Select(ending => (kind, ending)))];

    [Theory, MemberData(nameof(Cases))]
    public async Task A_connection_ends_for_the_right_reason(TransportKind kind, string ending)
    {
        var (errorType, client, application, settings) = Endings[ending];
        settings = (settings ?? new HostSettings()) with { Services = static services => services.AddSingleton<Entrance>() };
        await using var host = await TransportHost.StartAsync(kind, application ?? OkAsync, settings);
        using var metrics = new CollectedMetrics(host);

        await client(host);

        await Eventually.HoldsAsync(() => metrics.EndedConnections.Count > 0);
        Assert.Equal(errorType, Assert.Single(metrics.EndedConnections));
        Assert.Equal((0, 0), (metrics.ActiveConnections, metrics.QueuedConnections));

        // What a client does is no error of the server's, unless the application makes it one by not catching what Kestrel throws.
        Assert.DoesNotContain(
            host.Logs.Entries,
            static entry => entry.Level >= LogLevel.Error
                && entry.Exception is not (InvalidTimeZoneException or Microsoft.AspNetCore.Http.BadHttpRequestException));
        Assert.DoesNotContain(host.Logs.OfTransport, static entry => entry.Level > LogLevel.Debug);
    }

    // ---- Applications ----

    private static Task OkAsync(HttpContext context)
    {
        context.Response.ContentLength = 2;
        return context.Response.WriteAsync("ok");
    }

    private static async Task WaitForAbortAsync(HttpContext context)
    {
        var aborted = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var registration = context.RequestAborted.Register(aborted.SetResult);
        context.RequestServices.GetRequiredService<Entrance>().SetResult();
        await aborted.Task;
    }

    private static async Task ReadBodyAsync(HttpContext context)
    {
        var result = await context.Request.BodyReader.ReadAsync();
        context.Request.BodyReader.AdvanceTo(result.Buffer.End);
        context.RequestServices.GetRequiredService<Entrance>().SetResult();
        await context.Request.Body.CopyToAsync(Stream.Null);
    }

    private static async Task UpgradeAsync(HttpContext context)
    {
        await using var stream = await context.Features.GetRequiredFeature<IHttpUpgradeFeature>().UpgradeAsync();
        await stream.WriteAsync("upgraded"u8.ToArray());
    }

    // ---- Clients ----

    private static Func<TransportHost, Task> Leave(string text, bool reset) => async host =>
    {
        var client = await host.ConnectAsync();
        await client.SendAllAsync(Encoding.Latin1.GetBytes(text)).OrTimeout();
        End(client, reset);
    };

    private static Func<TransportHost, Task> LeaveAfterAnswer(bool reset) => async host =>
    {
        var client = await host.ConnectAsync();
        await AnswerAsync(client);
        End(client, reset);
    };

    private static Func<TransportHost, Task> LeaveInside(string text, bool reset) => async host =>
    {
        var client = await host.ConnectAsync();
        await client.SendAllAsync(text).OrTimeout();
        await host.Services.GetRequiredService<Entrance>().Task.OrTimeout();
        End(client, reset);
    };

    private static Func<TransportHost, Task> FinishesAsync(string text, string answer) => async host =>
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(text).OrTimeout();
        Assert.StartsWith(answer, Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout()), StringComparison.Ordinal);
    };

    private static Func<TransportHost, Task> ResetsAsync(string text) => async host =>
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(text).OrTimeout();
        Assert.Equal(SocketError.ConnectionReset, await client.ReceiveErrorAsync().OrTimeout());
    };

    private static Func<TransportHost, Task> NeverReadsAsync(Func<TransportHost, Task<Socket>> connect) => async host =>
    {
        using var client = await connect(host);
        using var metrics = new CollectedMetrics(host);
        await client.SendAllAsync(Get).OrTimeout();
        await Eventually.HoldsAsync(() => metrics.EndedConnections.Count > 0);
        Assert.Equal(SocketError.ConnectionReset, await client.ReceiveErrorAsync().OrTimeout());
    };

    private static async Task AnswersAndFinishesAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await AnswerAsync(client);
        Assert.Empty(await client.ReceiveToEndAsync().OrTimeout());
    }

    private static async Task UpgradesAndFinishesAsync(TransportHost host)
    {
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").OrTimeout();
        Assert.StartsWith("HTTP/1.1 101", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);
        Assert.Equal("upgraded"u8.ToArray(), await client.ReceiveToEndAsync().OrTimeout());
    }

    private static Func<TransportHost, Task> LeaveTlsAsync(bool reset) => async host =>
    {
        var client = await host.ConnectAsync();
        var stream = new SslStream(new NetworkStream(client));
        await stream.AuthenticateAsClientAsync(Trusting(new SslClientAuthenticationOptions())).OrTimeout();
        Assert.StartsWith("HTTP/1.1 200", await ExchangeAsync(stream).OrTimeout(), StringComparison.Ordinal);
        End(client, reset);
    };

    private static Func<TransportHost, Task> LeaveHttp2Async(bool reset) => async host =>
    {
        var client = await RawHttp2Client.ConnectAsync(host);
        await client.GetAsync(1);
        await client.ReadUntilAsync(static frame => frame.EndsStream);
        End(client.Socket, reset);
    };

    private static async Task AnswerAsync(Socket client)
    {
        await client.SendAllAsync(Get).OrTimeout();
        await client.ReceiveUntilAsync("\r\n\r\nok").OrTimeout();
    }

    private static async Task<SslStream> TlsAsync(TransportHost host, SslClientAuthenticationOptions options)
    {
        var stream = new SslStream(new NetworkStream(await host.ConnectAsync(), ownsSocket: true));
        await stream.AuthenticateAsClientAsync(Trusting(options)).OrTimeout();
        return stream;
    }

    private static SslClientAuthenticationOptions Trusting(SslClientAuthenticationOptions options)
    {
        options.TargetHost = "localhost";
        options.RemoteCertificateValidationCallback = static (_, certificate, _, _) =>
            certificate?.GetCertHashString() == TestCertificate.Instance.GetCertHashString();
        return options;
    }

    /// <summary>A request, and the first part of its answer.</summary>
    private static async Task<string> ExchangeAsync(SslStream stream)
    {
        await stream.WriteAsync(Encoding.ASCII.GetBytes(Get));
        var buffer = new byte[4096];
        var text = new StringBuilder();
        while (!text.ToString().EndsWith("\r\n\r\nok", StringComparison.Ordinal))
        {
            var count = await stream.ReadAsync(buffer);
            if (count == 0)
            {
                throw new EndOfStreamException();
            }

            text.Append(Encoding.ASCII.GetString(buffer, 0, count));
        }

        return text.ToString();
    }

    private static void End(Socket client, bool reset)
    {
        if (reset)
        {
            client.Reset();
        }
        else
        {
            client.Dispose();
        }
    }

    /// <summary>Completed by the application once it has the request.</summary>
    private sealed class Entrance() : TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

    private sealed record Ending(
        string? ErrorType, Func<TransportHost, Task> Client, RequestDelegate? Application = null, HostSettings? Settings = null);
}
