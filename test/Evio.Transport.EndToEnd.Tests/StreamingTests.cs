using System.Globalization;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What is flushed leaves at once. The application goes on only after the client has seen the last chunk.</summary>
public sealed class StreamingTests
{
    private const int Chunks = 20;

    [Theory, AllTransports("1.1", "2.0")]
    public async Task Every_flushed_chunk_is_seen_before_the_next_is_written(TransportKind kind, string version)
    {
        using var seen = new SemaphoreSlim(0);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                for (var i = 0; i < Chunks; i++)
                {
                    await context.Response.WriteAsync($"chunk {i:00};");
                    await context.Response.Body.FlushAsync();
                    await seen.WaitAsync(context.RequestAborted);
                }
            },
            version == "2.0" ? HostSettings.Http2 : null);
        using var client = host.CreateClient(Version.Parse(version));
        await using var stream = await client.GetStreamAsync("/").OrTimeout();

        var buffer = new byte["chunk 00;".Length];
        for (var i = 0; i < Chunks; i++)
        {
            await stream.ReadExactlyAsync(buffer).OrTimeout();
            Assert.Equal(string.Create(CultureInfo.InvariantCulture, $"chunk {i:00};"), Encoding.ASCII.GetString(buffer));
            seen.Release();
        }

        Assert.Equal(0, await stream.ReadAsync(buffer).OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Headers_are_seen_before_the_first_byte_of_the_body_is_written(TransportKind kind)
    {
        var seen = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            await context.Response.StartAsync();
            await context.Response.Body.FlushAsync();
            await seen.Task;
            await context.Response.WriteAsync("body");
        });
        using var client = host.CreateClient();

        using var response = await client.GetAsync("/", HttpCompletionOption.ResponseHeadersRead).OrTimeout();
        seen.SetResult();

        Assert.Equal("body", await response.Content.ReadAsStringAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_flush_is_seen_while_the_application_blocks_its_thread_behind_it(TransportKind kind)
    {
        // Blocking is what an inline application must not do: there it holds its whole loop up, but not what it has flushed before.
        using var seen = new ManualResetEventSlim();
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            await context.Response.WriteAsync("flushed");
            await context.Response.Body.FlushAsync();
            Assert.True(seen.Wait(TestTimeouts.Default));
        });
        using var client = host.CreateClient();
        await using var stream = await client.GetStreamAsync("/").OrTimeout();

        var buffer = new byte["flushed".Length];
        await stream.ReadExactlyAsync(buffer).OrTimeout();
        seen.Set();

        Assert.Equal("flushed", Encoding.ASCII.GetString(buffer));
        Assert.Equal(0, await stream.ReadAsync(buffer).OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Server_sent_events_are_seen_one_by_one(TransportKind kind)
    {
        using var seen = new SemaphoreSlim(0);
        await using var host = await TransportHost.StartAsync(kind, async context =>
        {
            context.Response.ContentType = "text/event-stream";
            context.Features.GetRequiredFeature<IHttpResponseBodyFeature>().DisableBuffering();
            for (var i = 0; i < Chunks; i++)
            {
                await context.Response.WriteAsync(string.Create(CultureInfo.InvariantCulture, $"id: {i}\ndata: event {i}\n\n"));
                await context.Response.Body.FlushAsync();
                await seen.WaitAsync(context.RequestAborted);
            }
        });
        using var client = host.CreateClient();
        using var reader = new StreamReader(await client.GetStreamAsync("/").OrTimeout());

        for (var i = 0; i < Chunks; i++)
        {
            Assert.Equal(string.Create(CultureInfo.InvariantCulture, $"id: {i}"), await reader.ReadLineAsync().OrTimeout());
            Assert.Equal(string.Create(CultureInfo.InvariantCulture, $"data: event {i}"), await reader.ReadLineAsync().OrTimeout());
            Assert.Equal(string.Empty, await reader.ReadLineAsync().OrTimeout());
            seen.Release();
        }

        Assert.Null(await reader.ReadLineAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_request_body_is_seen_chunk_by_chunk_while_the_client_still_sends(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static async context =>
        {
            context.Response.ContentLength = 5;
            await context.Response.Body.FlushAsync();
            var buffer = new byte[1];
            while (await context.Request.Body.ReadAsync(buffer) > 0)
            {
                await context.Response.Body.WriteAsync(buffer);
                await context.Response.Body.FlushAsync();
            }
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").OrTimeout();
        Assert.StartsWith("HTTP/1.1 200", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);

        for (byte i = 0; i < 5; i++)
        {
            await client.SendAllAsync(new[] { i }).OrTimeout();
            Assert.Equal([i], await client.ReceiveExactlyAsync(1).OrTimeout());
        }
    }

    [Theory, AllTransports]
    public async Task A_flush_is_seen_though_more_pipelined_input_waits(TransportKind kind)
    {
        using var seen = new SemaphoreSlim(0);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                context.Response.Headers.Date = "fixed";
                context.Response.ContentLength = 2;
                await context.Response.WriteAsync("a");
                await context.Response.Body.FlushAsync();
                await seen.WaitAsync(context.RequestAborted);
                await context.Response.WriteAsync("b");
            },
            new HostSettings { Kestrel = static options => options.AddServerHeader = false });
        using var client = await host.ConnectAsync();
        const string Request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        await client.SendAllAsync(Request + Request + Request).OrTimeout();

        for (var i = 0; i < 3; i++)
        {
            const string Half = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: fixed\r\n\r\na";
            Assert.Equal(Half, Encoding.ASCII.GetString(await client.ReceiveExactlyAsync(Half.Length).OrTimeout()));
            seen.Release();
            Assert.Equal("b"u8.ToArray(), await client.ReceiveExactlyAsync(1).OrTimeout());
        }
    }
}
