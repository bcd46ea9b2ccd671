using System.Globalization;
using System.Net;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class Http1Tests
{
    private static readonly HostSettings WithoutServerHeader = new() { Kestrel = static options => options.AddServerHeader = false };

    [Theory, AllTransports(1, 2)]
    public async Task A_thousand_requests_share_one_connection(TransportKind kind, int loops)
    {
        var settings = new HostSettings { Transport = new TransportSettings { LoopCount = loops } };
        await using var host = await TransportHost.StartAsync(
            kind, static context => context.Response.WriteAsync(context.Connection.Id), settings);
        using var client = host.CreateClient();

        var connections = new HashSet<string>();
        for (var i = 0; i < 1000; i++)
        {
            connections.Add(await client.GetStringAsync($"/{i}").OrTimeout());
        }

        Assert.NotEmpty(Assert.Single(connections));
    }

    [Theory, AllTransports]
    public async Task Connection_close_ends_the_connection_after_the_whole_answer(TransportKind kind)
    {
        var body = TestData.Bytes(1_000_000);
        await using var host = await TransportHost.StartAsync(kind, context =>
        {
            context.Response.ContentLength = body.Length;
            return context.Response.Body.WriteAsync(body).AsTask();
        });
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").OrTimeout();
        var answer = await client.ReceiveToEndAsync().OrTimeout();

        var headerEnd = answer.AsSpan().IndexOf("\r\n\r\n"u8) + 4;
        Assert.Contains("Connection: close", Encoding.ASCII.GetString(answer, 0, headerEnd), StringComparison.Ordinal);
        TestData.AssertSame(body, answer.AsMemory(headerEnd));
    }

    [Theory, AllTransports]
    public async Task An_HTTP_1_0_request_is_answered_and_the_connection_ends(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("ok"));
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("GET / HTTP/1.0\r\n\r\n").OrTimeout();
        var answer = Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout());

        Assert.StartsWith("HTTP/1.1 200 OK\r\n", answer, StringComparison.Ordinal);
        Assert.EndsWith("\r\n\r\nok", answer, StringComparison.Ordinal);
    }

    [Theory, AllTransports(1, 2)]
    public async Task Sixteen_pipelined_requests_are_answered_in_order(TransportKind kind, int loops)
    {
        var settings = WithoutServerHeader with { Transport = new TransportSettings { LoopCount = loops } };
        await using var host = await TransportHost.StartAsync(kind, EchoPathAndBodyAsync, settings);
        using var client = await host.ConnectAsync();

        for (var round = 0; round < 50; round++)
        {
            var paths = Enumerable.Range(round * 16, 16).Select(static i => $"/{i}").ToArray();
            await client.SendAllAsync(string.Concat(paths.Select(static path => Get(path)))).OrTimeout();

            var expected = Encoding.ASCII.GetBytes(string.Concat(paths.Select(static path => Answer(path, string.Empty))));
            TestData.AssertSame(expected, await client.ReceiveExactlyAsync(expected.Length).OrTimeout());
        }
    }

    [Theory, AllTransports]
    public async Task Pipelined_requests_of_an_application_that_yields_are_answered_in_order(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static async context =>
            {
                await Task.Yield();
                await EchoPathAndBodyAsync(context);
                await Task.Yield();
            },
            WithoutServerHeader);
        using var client = await host.ConnectAsync();
        var paths = Enumerable.Range(0, 16).Select(static i => $"/{i}").ToArray();

        await client.SendAllAsync(string.Concat(paths.Select(static path => Get(path)))).OrTimeout();

        var expected = Encoding.ASCII.GetBytes(string.Concat(paths.Select(static path => Answer(path, string.Empty))));
        TestData.AssertSame(expected, await client.ReceiveExactlyAsync(expected.Length).OrTimeout());
    }

    [Theory, AllTransports]
    public async Task The_first_of_two_pipelined_answers_does_not_wait_for_the_second(TransportKind kind)
    {
        var secondMayEnd = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                if (context.Request.Path == "/second")
                {
                    await secondMayEnd.Task;
                }

                await EchoPathAndBodyAsync(context);
            },
            WithoutServerHeader);
        using var client = await host.ConnectAsync();

        await client.SendAllAsync(Get("/first") + Get("/second")).OrTimeout();

        var first = Answer("/first", string.Empty);
        Assert.Equal(first, Encoding.ASCII.GetString(await client.ReceiveExactlyAsync(first.Length).OrTimeout()));
        secondMayEnd.SetResult();
        var second = Answer("/second", string.Empty);
        Assert.Equal(second, Encoding.ASCII.GetString(await client.ReceiveExactlyAsync(second.Length).OrTimeout()));
    }

    [Theory, AllTransports]
    public async Task Pipelined_requests_split_at_any_byte_are_understood(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, EchoPathAndBodyAsync, WithoutServerHeader);
        using var client = await host.ConnectAsync();
        var (requests, expected) = MixedPipeline();

        for (var split = 1; split < requests.Length; split++)
        {
            await client.SendAllAsync(requests.AsMemory(0, split)).OrTimeout();
            await client.SendAllAsync(requests.AsMemory(split)).OrTimeout();

            TestData.AssertSame(expected, await client.ReceiveExactlyAsync(expected.Length).OrTimeout());
        }
    }

    [Theory, AllTransports]
    public async Task Pipelined_requests_sent_byte_by_byte_are_understood(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, EchoPathAndBodyAsync, WithoutServerHeader);
        using var client = await host.ConnectAsync();
        var (requests, expected) = MixedPipeline();
        var receive = client.ReceiveExactlyAsync(expected.Length * 5);

        for (var round = 0; round < 5; round++)
        {
            for (var i = 0; i < requests.Length; i++)
            {
                await client.SendAllAsync(requests.AsMemory(i, 1)).OrTimeout();
            }
        }

        TestData.AssertSame(Enumerable.Repeat(expected, 5).SelectMany(static answer => answer).ToArray(), await receive.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Expect_100_continue_is_answered_before_the_body_comes(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, EchoPathAndBodyAsync, WithoutServerHeader);
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("POST /expect HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").OrTimeout();
        Assert.Equal("HTTP/1.1 100 Continue\r\n\r\n", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout());
        await client.SendAllAsync("hello").OrTimeout();

        var expected = Answer("/expect", "hello");
        Assert.Equal(expected, Encoding.ASCII.GetString(await client.ReceiveExactlyAsync(expected.Length).OrTimeout()));
    }

    [Theory, AllTransports]
    public async Task An_application_that_throws_answers_500_and_the_connection_stays_usable(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static context => context.Request.Path == "/throw"
            ? throw new InvalidTimeZoneException()
            : context.Response.WriteAsync(context.Connection.Id));
        using var client = host.CreateClient();
        var before = await client.GetStringAsync("/").OrTimeout();

        for (var i = 0; i < 3; i++)
        {
            using var response = await client.GetAsync("/throw").OrTimeout();
            Assert.Equal(HttpStatusCode.InternalServerError, response.StatusCode);
        }

        Assert.Equal(before, await client.GetStringAsync("/").OrTimeout());
    }

    [Theory, AllTransports]
    public async Task An_application_that_throws_after_its_response_started_cuts_the_answer(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static async context =>
        {
            await context.Response.WriteAsync("begun");
            throw new InvalidTimeZoneException();
        });
        using var client = host.CreateClient();
        using var response = await client.GetAsync("/", HttpCompletionOption.ResponseHeadersRead).OrTimeout();

        await Assert.ThrowsAsync<HttpRequestException>(() => response.Content.ReadAsByteArrayAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_malformed_request_is_answered_400_and_the_connection_ends(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, EchoPathAndBodyAsync);
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("NOT HTTP\r\n\r\n").OrTimeout();

        var answer = Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout());
        Assert.StartsWith("HTTP/1.1 400 Bad Request\r\n", answer, StringComparison.Ordinal);
    }

    [Theory, AllTransports]
    public async Task A_body_that_ends_too_early_is_an_error_in_the_application(TransportKind kind)
    {
        var thrown = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind, async context => thrown.SetResult(await Record.ExceptionAsync(() => context.Request.Body.CopyToAsync(Stream.Null))));
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").OrTimeout();
        client.Shutdown(System.Net.Sockets.SocketShutdown.Send);

        Assert.IsType<BadHttpRequestException>(await thrown.Task.OrTimeout(), exactMatch: false);
    }

    [Theory, AllTransports]
    public async Task An_upgraded_stream_begins_with_what_came_along_with_the_request(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static async context =>
        {
            await using var stream = await context.Features.GetRequiredFeature<IHttpUpgradeFeature>().UpgradeAsync();
            var buffer = new byte[1024];
            for (int n; (n = await stream.ReadAsync(buffer)) > 0;)
            {
                await stream.WriteAsync(buffer.AsMemory(0, n));
                await stream.FlushAsync();
            }
        });
        using var client = await host.ConnectAsync();

        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly").OrTimeout();
        Assert.StartsWith("HTTP/1.1 101 ", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);
        Assert.Equal("early"u8.ToArray(), await client.ReceiveExactlyAsync(5).OrTimeout());
        await client.SendAllAsync("late").OrTimeout();
        Assert.Equal("late"u8.ToArray(), await client.ReceiveExactlyAsync(4).OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Two_hundred_connections_have_their_requests_in_flight_at_once(TransportKind kind)
    {
        const int Count = 200;
        var arrived = new CountdownEvent(Count);
        var allArrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            if (arrived.Signal())
            {
                allArrived.SetResult();
            }

            await allArrived.Task;
            await context.Response.WriteAsync(context.Request.Path);
        });
        using var client = host.CreateClient();

        var answers = await Task.WhenAll(Enumerable.Range(0, Count).Select(i => client.GetStringAsync($"/{i}"))).OrTimeout();

        Assert.Equal(Enumerable.Range(0, Count).Select(static i => $"/{i}"), answers);
    }

    private static string Get(string path) => $"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n";

    private static string Answer(string path, string body)
    {
        var content = path + body;
        return string.Create(
            CultureInfo.InvariantCulture, $"HTTP/1.1 200 OK\r\nContent-Length: {content.Length}\r\nDate: fixed\r\n\r\n{content}");
    }

    private static async Task EchoPathAndBodyAsync(HttpContext context)
    {
        using var reader = new StreamReader(context.Request.Body, Encoding.ASCII);
        var content = context.Request.Path + await reader.ReadToEndAsync();
        context.Response.Headers.Date = "fixed";
        context.Response.ContentLength = content.Length;
        await context.Response.WriteAsync(content);
    }

    private static (byte[] Requests, byte[] Answers) MixedPipeline()
    {
        var requests = Get("/a")
            + "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
            + "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nchu\r\n4\r\nnked\r\n0\r\n\r\n"
            + Get("/d");
        var answers = Answer("/a", string.Empty) + Answer("/b", "body") + Answer("/c", "chunked") + Answer("/d", string.Empty);
        return (Encoding.ASCII.GetBytes(requests), Encoding.ASCII.GetBytes(answers));
    }
}
