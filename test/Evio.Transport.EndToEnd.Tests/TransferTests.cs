using System.Net.Sockets;
using System.Security.Cryptography;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class TransferTests
{
    private const int UploadBytes = 20 * 1024 * 1024;
    private const long DownloadBytes = 100L * 1024 * 1024;

    private static readonly byte[] Pattern = TestData.Bytes(64 * 1024 + 7);

    [Theory, AllTransports("1.1", "2.0")]
    public async Task An_upload_of_20_MB_arrives_unchanged(TransportKind kind, string version)
    {
        var settings = (version == "2.0" ? HostSettings.Http2 : new HostSettings()) with
        {
            Kestrel = static options => options.Limits.MaxRequestBodySize = null,
        };
        await using var host = await TransportHost.StartAsync(
            kind, static async context => await context.Response.WriteAsync(await HashAsync(context.Request.Body)), settings);
        using var client = host.CreateClient(Version.Parse(version));
        var sent = TestData.Bytes(UploadBytes);

        using var response = await client.PostAsync("/", new ByteArrayContent(sent)).OrTimeout();

        Assert.Equal(Convert.ToHexString(SHA256.HashData(sent)), await response.Content.ReadAsStringAsync().OrTimeout());
    }

    [Theory, AllTransports(1, 2)]
    public async Task A_download_of_100_MB_arrives_unchanged(TransportKind kind, int loops)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => WritePatternAsync(context, DownloadBytes),
            new HostSettings { Transport = new TransportSettings { LoopCount = loops } });
        using var client = host.CreateClient();

        await using var stream = await client.GetStreamAsync("/").OrTimeout();

        Assert.Equal(PatternHash(DownloadBytes), await HashAsync(stream).OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Twenty_uploads_at_once_arrive_unchanged(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind, static async context => await context.Response.WriteAsync(await HashAsync(context.Request.Body)));
        using var client = host.CreateClient();

        await Task.WhenAll(Enumerable.Range(0, 20).Select(async i =>
        {
            var sent = TestData.Bytes(1_000_000 + i, seed: i);
            using var response = await client.PostAsync("/", new ByteArrayContent(sent)).OrTimeout();
            Assert.Equal(Convert.ToHexString(SHA256.HashData(sent)), await response.Content.ReadAsStringAsync().OrTimeout());
        }));
    }

    [Theory, AllTransports]
    public async Task A_slow_reader_holds_the_application_back_with_bounded_memory(TransportKind kind)
    {
        const long Size = 200L * 1024 * 1024;
        long written = 0;
        await using var host = await TransportHost.StartAsync(
            kind,
            context => WritePatternAsync(context, Size, count => Interlocked.Add(ref written, count)),
            new HostSettings { Kestrel = static options => options.Limits.MinResponseDataRate = null });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").OrTimeout();

        var stalledAt = await Eventually.SettlesAsync(() => Volatile.Read(ref written));

        // Kestrel's and the transport's limits are well below 1 MiB; the rest is what the kernel's buffers of both sockets may hold.
        Assert.InRange(stalledAt, 1, 32L * 1024 * 1024);

        Assert.StartsWith("HTTP/1.1 200 OK", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);
        await using var stream = new NetworkStream(client);
        Assert.Equal(PatternHash(Size), await HashAsync(stream).OrTimeout());
        Assert.Equal(Size, Volatile.Read(ref written));
    }

    [Theory, AllTransports]
    public async Task An_application_that_does_not_read_holds_the_client_back_until_it_does(TransportKind kind)
    {
        const int Chunks = 1000;
        var mayRead = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                await mayRead.Task;
                await context.Response.WriteAsync(await HashAsync(context.Request.Body));
            },
            new HostSettings
            {
                Kestrel = static options =>
                {
                    options.Limits.MaxRequestBodySize = null;
                    options.Limits.MinRequestBodyDataRate = null;
                },
            });
        using var client = await host.ConnectAsync();
        long sent = 0;
        var sending = Task.Run(async () =>
        {
            await client.SendAllAsync($"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {Chunks * (long)Pattern.Length}\r\n\r\n");
            for (var i = 0; i < Chunks; i++)
            {
                await client.SendAllAsync(Pattern);
                Interlocked.Add(ref sent, Pattern.Length);
            }
        });

        var stalledAt = await Eventually.SettlesAsync(() => Volatile.Read(ref sent));
        Assert.InRange(stalledAt, 1, 32L * 1024 * 1024);
        mayRead.SetResult();

        await sending.OrTimeout();
        Assert.StartsWith("HTTP/1.1 200 OK", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);
        Assert.Contains(
            PatternHash(Chunks * (long)Pattern.Length),
            await client.ReceiveUntilAsync("\r\n0\r\n\r\n").OrTimeout(),
            StringComparison.Ordinal);
    }

    [Theory, AllTransports]
    public async Task Both_directions_back_up_and_flow_again_at_once(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static context =>
            {
                context.Response.ContentLength = context.Request.ContentLength;
                return Applications.EchoAsync(context);
            },
            new HostSettings
            {
                Transport = new TransportSettings { MaxReadBufferSize = 64 * 1024, MaxWriteBufferSize = 64 * 1024 },
                Kestrel = static options => options.Limits.MaxRequestBodySize = null,
            });
        var sent = TestData.Bytes(30_000_000);
        using var client = await host.ConnectAsync();
        var sending = Task.Run(async () =>
        {
            await client.SendAllAsync($"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {sent.Length}\r\n\r\n");
            await client.SendAllAsync(sent);
        });

        // Nothing is received yet, so the echo backs up through the whole server into the sender.
        await Eventually.SettlesAsync(() => client.Available);
        Assert.False(sending.IsCompleted);

        Assert.StartsWith("HTTP/1.1 200 OK", await client.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);
        TestData.AssertSame(sent, await client.ReceiveExactlyAsync(sent.Length).OrTimeout());
        await sending.OrTimeout();
    }

    private static async Task WritePatternAsync(HttpContext context, long size, Action<int>? written = null)
    {
        context.Response.ContentLength = size;
        for (var left = size; left > 0;)
        {
            var count = (int)Math.Min(left, Pattern.Length);
            await context.Response.Body.WriteAsync(Pattern.AsMemory(0, count));
            written?.Invoke(count);
            left -= count;
        }
    }

    private static async Task<string> HashAsync(Stream stream) => Convert.ToHexString(await SHA256.HashDataAsync(stream));

    private static string PatternHash(long size)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        for (var left = size; left > 0; left -= Pattern.Length)
        {
            hash.AppendData(Pattern, 0, (int)Math.Min(left, Pattern.Length));
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }
}
