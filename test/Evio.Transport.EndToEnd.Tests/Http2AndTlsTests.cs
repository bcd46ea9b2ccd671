using System.Net;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class Http2AndTlsTests
{
    [Theory, AllTransports(1, 2)]
    public async Task Fifty_streams_of_one_connection_run_in_parallel(TransportKind kind, int loops)
    {
        const int Count = 50;
        var arrived = new CountdownEvent(Count);
        var allArrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var settings = HostSettings.Http2 with { Transport = new TransportSettings { LoopCount = loops } };
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                if (arrived.Signal())
                {
                    allArrived.SetResult();
                }

                await allArrived.Task;
                await context.Response.WriteAsync($"{context.Connection.Id[..13]} {context.Request.Protocol}");
            },
            settings);
        using var client = host.CreateClient(HttpVersion.Version20);

        var answers = await Task.WhenAll(Enumerable.Range(0, Count).Select(i => client.GetStringAsync($"/{i}"))).OrTimeout();

        Assert.EndsWith(" HTTP/2", Assert.Single(answers.Distinct()), StringComparison.Ordinal);
    }

    [Theory, AllTransports]
    public async Task Large_bodies_go_both_ways_on_parallel_HTTP2_streams(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, HostSettings.Http2);
        using var client = host.CreateClient(HttpVersion.Version20);

        await Task.WhenAll(Enumerable.Range(0, 10).Select(async i =>
        {
            var sent = TestData.Bytes(1_000_000 + i, seed: i);
            using var response = await client.PostAsync("/", new DuplexContent(sent)).OrTimeout();
            TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync().OrTimeout());
        }));
    }

    [Theory, AllTransports]
    public async Task HTTP2_trailers_arrive(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static async context =>
            {
                context.Response.DeclareTrailer("x-trailer");
                await context.Response.WriteAsync("body");
                context.Response.AppendTrailer("x-trailer", "value");
            },
            HostSettings.Http2);
        using var client = host.CreateClient(HttpVersion.Version20);
        using var response = await client.GetAsync("/").OrTimeout();

        Assert.Equal("body", await response.Content.ReadAsStringAsync().OrTimeout());
        Assert.Equal(["value"], response.TrailingHeaders.GetValues("x-trailer"));
    }

    [Theory, AllTransports]
    public async Task An_HTTP2_stream_that_the_client_cancels_aborts_only_its_own_request(TransportKind kind)
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var aborted = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                if (context.Request.Path == "/wait")
                {
                    using var registration = context.RequestAborted.Register(aborted.SetResult);
                    entered.SetResult();
                    await aborted.Task;
                    return;
                }

                await context.Response.WriteAsync("fine");
            },
            HostSettings.Http2);
        using var client = host.CreateClient(HttpVersion.Version20);
        using var source = new CancellationTokenSource();
        var waiting = client.GetAsync("/wait", source.Token);
        await entered.Task.OrTimeout();

        await source.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting.OrTimeout());
        await aborted.Task.OrTimeout();
        Assert.Equal("fine", await client.GetStringAsync("/").OrTimeout());
    }

    [Theory, AllTransports("1.1", "2.0")]
    public async Task HTTPS_agrees_on_the_version_by_ALPN(TransportKind kind, string version)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync($"{context.Request.Scheme} {context.Request.Protocol}"),
            HostSettings.Https);
        using var client = host.CreateClient(Version.Parse(version));

        var answer = await client.GetStringAsync("/").OrTimeout();

        Assert.Equal(version == "2.0" ? "https HTTP/2" : "https HTTP/1.1", answer);
    }

    [Theory, AllTransports("1.1", "2.0")]
    public async Task Large_bodies_go_both_ways_over_HTTPS(TransportKind kind, string version)
    {
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoWholeAsync, HostSettings.Https);
        using var client = host.CreateClient(Version.Parse(version));

        await Task.WhenAll(Enumerable.Range(0, 4).Select(async i =>
        {
            var sent = TestData.Bytes(3_000_000 + i, seed: i);
            using var response = await client.PostAsync("/", new ByteArrayContent(sent)).OrTimeout();
            TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync().OrTimeout());
        }));
    }

    [Theory, AllTransports]
    public async Task Plain_HTTP_to_an_HTTPS_port_ends_that_connection_alone(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, HostSettings.Https);
        using var plain = await host.ConnectAsync();
        await plain.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();

        // The server may say why, in TLS or not at all; what counts is that it lets go.
        await plain.ReceiveToEndAsync().OrTimeout();

        using var client = host.CreateClient();
        using var response = await client.PostAsync("/", new StringContent("served", Encoding.UTF8)).OrTimeout();
        Assert.Equal("served", await response.Content.ReadAsStringAsync().OrTimeout());
    }

    /// <summary>Unlike <see cref="ByteArrayContent"/>, a content that the client sends while it already receives the answer.</summary>
    private sealed class DuplexContent(byte[] bytes) : HttpContent
    {
        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) => stream.WriteAsync(bytes).AsTask();

        protected override bool TryComputeLength(out long length)
        {
            length = bytes.Length;
            return true;
        }
    }
}
