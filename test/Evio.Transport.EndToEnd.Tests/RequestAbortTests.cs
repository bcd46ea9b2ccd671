using System.Net;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What a request experiences of its client's end, beyond the token that <see cref="DisconnectTests"/> waits for.</summary>
public sealed class RequestAbortTests
{
    private const string Get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    private const string Post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";

    public enum Place
    {
        WithoutABody,
        WithUnreadBytes,
        OverUnix,
    }

    [Theory, AllTransports(Place.WithoutABody, Place.WithUnreadBytes, Place.OverUnix)]
    public async Task A_half_close_aborts_the_request_and_nothing_more_is_sent(TransportKind kind, Place place)
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var path = new UnixSocketPath();
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                var aborted = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                using var registration = context.RequestAborted.Register(aborted.SetResult);
                entered.SetResult();
                await aborted.Task;

                // A write is no exception, but too late.
                await context.Response.WriteAsync("too late");
                await context.Response.Body.FlushAsync();
            },
            place is Place.OverUnix ? new HostSettings { EndPoint = path.EndPoint } : null);
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(place is Place.WithUnreadBytes ? Post + "some" : Get).OrTimeout();
        await entered.Task.OrTimeout();

        client.Shutdown(SocketShutdown.Send);

        Assert.Empty(await client.ReceiveToEndAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_reset_in_the_body_is_a_reset_to_its_reader(TransportKind kind)
    {
        var read = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            var buffer = new byte[4];
            await context.Request.Body.ReadExactlyAsync(buffer);
            var next = context.Request.Body.ReadAsync(buffer);
            entered.SetResult();
            read.SetResult(await Record.ExceptionAsync(async () => _ = await next));
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(Post + "half").OrTimeout();
        await entered.Task.OrTimeout();

        client.Reset();

        Assert.IsType<ConnectionResetException>(await read.Task.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_FIN_in_the_body_is_an_unexpected_end_to_its_reader(TransportKind kind)
    {
        var read = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind, async context => read.SetResult(await Record.ExceptionAsync(() => context.Request.Body.CopyToAsync(Stream.Null))));
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(Post + "half").OrTimeout();

        client.Dispose();

        var exception = Assert.IsType<BadHttpRequestException>(await read.Task.OrTimeout(), exactMatch: false);
        Assert.Contains("Unexpected end", exception.Message, StringComparison.Ordinal);
    }

    [Theory, AllTransports("FIN", "RST")]
    public async Task Writes_to_a_client_that_has_gone_are_no_exceptions(TransportKind kind, string end)
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var mayWrite = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var wrote = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            entered.SetResult();
            await mayWrite.Task;
            wrote.SetResult(await Record.ExceptionAsync(() => Applications.WriteUntilAbortedAsync(context)));
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(Get).OrTimeout();
        await entered.Task.OrTimeout();
        if (end == "RST")
        {
            client.Reset();
        }

        client.Dispose();

        mayWrite.SetResult();

        Assert.Null(await wrote.Task.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_request_that_was_answered_is_not_aborted_by_the_end_that_follows(TransportKind kind)
    {
        var aborted = 0;
        var answered = 0;
        await using var host = await TransportHost.StartAsync(kind, context =>
        {
            context.RequestAborted.Register(() => Interlocked.Increment(ref aborted));
            context.Response.OnCompleted(() =>
            {
                Interlocked.Increment(ref answered);
                return Task.CompletedTask;
            });
            context.Response.ContentLength = 2;
            return context.Response.WriteAsync("ok");
        });
        using var metrics = new CollectedMetrics(host);
        using (var client = await host.ConnectAsync())
        {
            for (var i = 0; i < 10; i++)
            {
                await client.SendAllAsync(Get).OrTimeout();
                await client.ReceiveUntilAsync("\r\n\r\nok").OrTimeout();
                await Eventually.HoldsAsync(() => Volatile.Read(ref answered) == i + 1);
            }
        }

        await Eventually.HoldsAsync(() => metrics.EndedConnections.Count == 1);
        Assert.Equal(0, aborted);
    }

    [Theory, AllTransports]
    public async Task An_upgraded_stream_ends_with_the_clients_half_close(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static async context =>
        {
            await using var stream = await context.Features.GetRequiredFeature<IHttpUpgradeFeature>().UpgradeAsync();
            using var received = new MemoryStream();
            await stream.CopyToAsync(received);
            await stream.WriteAsync(received.ToArray());
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").OrTimeout();
        await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout();
        await client.SendAllAsync(TestData.Bytes(100_000)).OrTimeout();

        client.Shutdown(SocketShutdown.Send);

        // Whether anything is still answered after the end of the input is Kestrel's choice; that it ends, and how, is not.
        await client.ReceiveToEndAsync().OrTimeout();
    }

    [Theory, AllTransports]
    public async Task An_upgraded_stream_carries_megabytes_both_ways_at_once(TransportKind kind)
    {
        const int Size = 5_000_000;
        await using var host = await TransportHost.StartAsync(kind, static async context =>
        {
            await using var stream = await context.Features.GetRequiredFeature<IHttpUpgradeFeature>().UpgradeAsync();
            var buffer = new byte[10_000];
            for (int count; (count = await stream.ReadAsync(buffer)) > 0;)
            {
                await stream.WriteAsync(buffer.AsMemory(0, count));
            }
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").OrTimeout();
        await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout();
        var receive = client.ReceiveExactlyAsync(Size);

        await client.SendAllAsync(TestData.Bytes(Size)).OrTimeout();

        TestData.AssertSame(TestData.Bytes(Size), await receive.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task An_application_that_refuses_an_expected_body_answers_and_ends_the_connection(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static context =>
        {
            context.Response.StatusCode = StatusCodes.Status417ExpectationFailed;
            return Task.CompletedTask;
        });
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").OrTimeout();

        Assert.StartsWith("HTTP/1.1 417", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);
    }

    [Theory, AllTransports("h2c", "TLS")]
    public async Task WebSockets_run_over_HTTP2(TransportKind kind, string protocol)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static async context =>
            {
                // Extended CONNECT (RFC 8441).
                Assert.Equal("CONNECT", context.Request.Method);
                var connect = context.Features.GetRequiredFeature<IHttpExtendedConnectFeature>();
                Assert.Equal("websocket", connect.Protocol);
                await using var stream = await connect.AcceptAsync();
                using var socket = WebSocket.CreateFromStream(stream, new WebSocketCreationOptions { IsServer = true });
                var buffer = new byte[64 * 1024];
                while (await socket.ReceiveAsync(buffer.AsMemory(), context.RequestAborted) is { MessageType: not WebSocketMessageType.Close } part)
                {
                    await socket.SendAsync(buffer.AsMemory(0, part.Count), part.MessageType, part.EndOfMessage, context.RequestAborted);
                }

                await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "done", context.RequestAborted);
            },
            protocol == "TLS" ? HostSettings.Https : HostSettings.Http2);
        using var invoker = host.CreateClient(HttpVersion.Version20);
        var sockets = new List<ClientWebSocket>();
        for (var i = 0; i < 3; i++)
        {
            var socket = new ClientWebSocket();
            sockets.Add(socket);
            socket.Options.HttpVersion = HttpVersion.Version20;
            socket.Options.HttpVersionPolicy = HttpVersionPolicy.RequestVersionExact;
            var scheme = protocol == "TLS" ? Uri.UriSchemeWss : Uri.UriSchemeWs;
            await socket.ConnectAsync(new UriBuilder(host.BaseAddress) { Scheme = scheme }.Uri, invoker, default).OrTimeout();
        }

        // The window of an HTTP/2 stream is smaller than the message, so that both sides have to go on at once.
        await Task.WhenAll(sockets.Select(static async (socket, i) =>
        {
            var message = TestData.Bytes(500_000, seed: i);
            var send = socket.SendAsync(message.AsMemory(), WebSocketMessageType.Binary, endOfMessage: true, default).AsTask();
            using var received = new MemoryStream();
            var buffer = new byte[64 * 1024];
            ValueWebSocketReceiveResult part;
            do
            {
                part = await socket.ReceiveAsync(buffer.AsMemory(), default);
                received.Write(buffer, 0, part.Count);
            }
            while (!part.EndOfMessage || received.Length < message.Length);
            await send;
            TestData.AssertSame(message, received.ToArray());
            await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "bye", default);
            socket.Dispose();
        })).OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_CONNECT_over_HTTP1_is_a_request_like_any_other(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind, static context => context.Response.WriteAsync($"{context.Request.Method} {context.Request.Host}"));
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\nConnection: close\r\n\r\n").OrTimeout();

        Assert.Contains(
            "CONNECT example.org:443", Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout()), StringComparison.Ordinal);
    }
}
