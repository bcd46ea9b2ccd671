using System.Globalization;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Limits of Kestrel and of the transport, and what happens at them.</summary>
public sealed class LimitTests
{
    private const int Block = 4096;
    private const string Upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";

    public enum Wire
    {
        Plain,
        Tls,
    }

    public enum Buffer
    {
        Limited,
        Unlimited,
    }

    [Theory, AllTransports]
    public async Task A_connection_beyond_MaxConcurrentConnections_is_ended_until_another_is(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync("ok"),
            new HostSettings { Kestrel = static options => options.Limits.MaxConcurrentConnections = 1 });
        using var metrics = new CollectedMetrics(host);
        using var first = await host.ConnectAsync();
        await first.SendAllAsync("GET / HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();
        await first.ReceiveUntilAsync("\r\n0\r\n\r\n").OrTimeout();

        for (var i = 1; i <= 3; i++)
        {
            using var beyond = await host.ConnectAsync();
            Assert.Empty(await beyond.ReceiveToEndAsync().OrTimeout());
            await Eventually.HoldsAsync(() => metrics.RejectedConnections == i);
        }

        first.Dispose();
        await Eventually.HoldsAsync(() => metrics.EndedConnections.Count == 4);
        using var client = host.CreateClient();
        Assert.Equal("ok", await client.GetStringAsync("/").OrTimeout());
    }

    [Theory, AllTransports]
    public async Task An_upgrade_beyond_MaxConcurrentUpgradedConnections_is_refused_until_another_ends(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static async context =>
            {
                await using var stream = await context.Features.GetRequiredFeature<IHttpUpgradeFeature>().UpgradeAsync();
                await stream.CopyToAsync(stream);
            },
            new HostSettings { Kestrel = static options => options.Limits.MaxConcurrentUpgradedConnections = 1 });
        using var metrics = new CollectedMetrics(host);
        using (var first = await host.ConnectAsync())
        {
            await first.SendAllAsync(Upgrade).OrTimeout();
            Assert.StartsWith("HTTP/1.1 101", await first.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);

            using var beyond = await host.ConnectAsync();
            await beyond.SendAllAsync(Upgrade).OrTimeout();
            Assert.StartsWith("HTTP/1.1 500", await beyond.ReceiveUntilAsync("\r\n\r\n").OrTimeout(), StringComparison.Ordinal);
        }

        await Eventually.HoldsAsync(() => metrics.EndedConnections.Count > 0);
        await Eventually.HoldsAsync(async () =>
        {
            using var next = await host.ConnectAsync();
            await next.SendAllAsync(Upgrade);
            return (await next.ReceiveUntilAsync("\r\n\r\n")).StartsWith("HTTP/1.1 101", StringComparison.Ordinal);
        });
    }

    [Theory, AllTransports]
    public async Task Headers_of_a_megabyte_are_read_where_they_are_permitted(TransportKind kind)
    {
        const int Headers = 1000;
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync(context.Request.Headers.Sum(static header => header.Value.ToString().Length)
                .ToString(CultureInfo.InvariantCulture)),
            new HostSettings
            {
                Kestrel = static options =>
                {
                    options.Limits.MaxRequestHeaderCount = Headers + 1;
                    options.Limits.MaxRequestBufferSize = 4 * 1024 * 1024;
                    options.Limits.MaxRequestHeadersTotalSize = 2 * 1024 * 1024;
                },
                Transport = new TransportSettings { MaxReadBufferSize = 4 * 1024 * 1024 },
            });
        using var client = await host.ConnectAsync();
        var request = new StringBuilder("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        for (var i = 0; i < Headers - 1; i++)
        {
            request.Append(CultureInfo.InvariantCulture, $"x-{i}: {new string('x', 1048)}\r\n");
        }

        await client.SendAllAsync(request.Append("\r\n").ToString()).OrTimeout();

        var expected = ((Headers - 1) * 1048) + "a".Length + "close".Length;
        Assert.EndsWith(
            string.Create(CultureInfo.InvariantCulture, $"\r\n{expected}\r\n0\r\n\r\n"),
            Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout()),
            StringComparison.Ordinal);
    }

    [Theory, AllTransports(Wire.Plain, Wire.Tls)]
    public async Task A_client_that_takes_small_steps_fast_enough_gets_the_whole_answer(TransportKind kind, Wire wire)
    {
        const int Size = 3_000_000;
        const int Step = 30_000;
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.Body.WriteAsync(TestData.Bytes(Size)).AsTask(),
            Over(wire) with
            {
                Kestrel = static options => options.Limits.MinResponseDataRate = new MinDataRate(100_000, TimeSpan.FromSeconds(1.01)),
                Transport = new TransportSettings { MaxWriteBufferSize = 64 * 1024 },
            });
        await using var stream = await OpenAsync(host, wire);
        await stream.WriteAsync("GET / HTTP/1.0\r\n\r\n"u8.ToArray()).AsTask().OrTimeout();

        // Longer than the grace period, but never slower than the rate.
        using var received = new MemoryStream();
        var buffer = new byte[Step];
        for (int count; (count = await stream.ReadAsync(buffer).OrTimeout()) > 0;)
        {
            received.Write(buffer, 0, count);
            await Task.Delay(20, TestContext.Current.CancellationToken);
        }

        var answer = received.ToArray();
        TestData.AssertSame(TestData.Bytes(Size), answer.AsMemory(answer.AsSpan().IndexOf("\r\n\r\n"u8) + 4));
    }

    [Theory, AllTransports(Wire.Plain, Wire.Tls)]
    public async Task MinResponseDataRate_ends_an_answer_that_is_not_taken(TransportKind kind, Wire wire)
    {
        var aborted = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                using var registration = context.RequestAborted.Register(aborted.SetResult);
                await Applications.WriteUntilAbortedAsync(context);
            },
            Over(wire) with { Kestrel = static options => options.Limits.MinResponseDataRate = new(1_000_000_000, TimeSpan.FromSeconds(1.01)) });
        await using var stream = await OpenAsync(host, wire);

        await stream.WriteAsync("GET / HTTP/1.0\r\n\r\n"u8.ToArray()).AsTask().OrTimeout();

        await aborted.Task.OrTimeout();
        var end = await Assert.ThrowsAsync<IOException>(() => stream.CopyToAsync(Stream.Null).OrTimeout());
        Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(end.InnerException).SocketErrorCode);
    }

    [Theory, AllTransports]
    public async Task MinResponseDataRate_ends_an_answer_though_the_other_direction_is_held_back_as_well(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings
        {
            Kestrel = static options =>
            {
                options.Limits.MaxRequestBodySize = null;
                options.Limits.MinRequestBodyDataRate = null;
                options.Limits.MinResponseDataRate = new MinDataRate(1_000_000_000, TimeSpan.FromSeconds(1.01));
            },
        });
        using var metrics = new CollectedMetrics(host);
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").OrTimeout();

        await Assert.ThrowsAsync<SocketException>(() => client.SendAllAsync(new byte[100_000_000]).OrTimeout());

        await Eventually.HoldsAsync(() => metrics.EndedConnections.Count > 0);
        Assert.Equal("min_response_data_rate", Assert.Single(metrics.EndedConnections));
    }

    public static TheoryData<TransportKind, Wire, Buffer> Buffers =>
    [
        .. from kind in Enum.GetValues<TransportKind>()
           from wire in Enum.GetValues<Wire>()
           from buffer in Enum.GetValues<Buffer>()
           select (kind, wire, buffer),
    ];

    /// <remarks>
    /// Nothing limits what a read ahead holds where the limit is removed, by zero in the transport's options (as on the Sockets transport). Over TLS, Kestrel has
    /// a buffer of its own in between.
    /// </remarks>
    [Theory, MemberData(nameof(Buffers))]
    public async Task A_client_stalls_at_the_read_buffer_if_it_is_limited(TransportKind kind, Wire wire, Buffer buffer)
    {
        const int Size = 30_000_000;
        const int Limit = 64 * 1024;
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        var mayRead = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                await mayRead.Task;
                using var body = new MemoryStream();
                await context.Request.Body.CopyToAsync(body);
                TestData.AssertSame(TestData.Bytes(Size), body.ToArray());
                await context.Response.WriteAsync("same");
            },
            Over(wire) with
            {
                Services = services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools),
                Kestrel = options =>
                {
                    options.Limits.MaxRequestBodySize = null;
                    options.Limits.MinRequestBodyDataRate = null;
                    options.Limits.MaxRequestLineSize = 1024;
                    options.Limits.MaxRequestHeadersTotalSize = 1024;
                    options.Limits.MaxRequestBufferSize = buffer is Buffer.Limited ? Limit : null;
                },
                Transport = new TransportSettings { MaxReadBufferSize = buffer is Buffer.Limited ? Limit : 0 },
            });
        await using var stream = await OpenAsync(host, wire);
        await stream.WriteAsync(Encoding.ASCII.GetBytes($"POST / HTTP/1.0\r\nContent-Length: {Size}\r\n\r\n")).AsTask().OrTimeout();
        long sent = 0;
        var sending = Task.Run(async () =>
        {
            var bytes = TestData.Bytes(Size);
            for (var from = 0; from < Size; from += 100_000)
            {
                await stream.WriteAsync(bytes.AsMemory(from, 100_000));
                Interlocked.Add(ref sent, 100_000);
            }
        });

        if (buffer is Buffer.Limited)
        {
            await Eventually.SettlesAsync(() => Volatile.Read(ref sent));
            Assert.False(sending.IsCompleted);

            // None where nothing was received ahead; at most the transport's limit, over TLS Kestrel's as well, and the blocks in use beyond them.
            Assert.InRange(pools.OutstandingBytes, 0, (4 * Limit) + (32 * Block));
        }
        else
        {
            await sending.OrTimeout();
        }

        mayRead.SetResult();
        await sending.OrTimeout();
        using var answer = new MemoryStream();
        await stream.CopyToAsync(answer).OrTimeout();
        Assert.EndsWith("\r\n\r\nsame", Encoding.ASCII.GetString(answer.ToArray()), StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Buffers))]
    public async Task An_application_stalls_at_the_write_buffer_if_it_is_limited(TransportKind kind, Wire wire, Buffer buffer)
    {
        const int Chunk = 100_000;
        const int Chunks = 300;
        const int Limit = 64 * 1024;
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        long written = 0;
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                for (var i = 0; i < Chunks; i++)
                {
                    await context.Response.Body.WriteAsync(TestData.Bytes(Chunk, seed: i));
                    Interlocked.Increment(ref written);
                }
            },
            Over(wire) with
            {
                Services = services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools),
                Kestrel = options =>
                {
                    options.Limits.MinResponseDataRate = null;
                    options.Limits.MaxResponseBufferSize = buffer is Buffer.Limited ? Limit : null;
                },
                Transport = new TransportSettings { MaxWriteBufferSize = buffer is Buffer.Limited ? Limit : 0 },
            });
        await using var stream = await OpenAsync(host, wire);
        await stream.WriteAsync("GET / HTTP/1.0\r\n\r\n"u8.ToArray()).AsTask().OrTimeout();

        if (buffer is Buffer.Limited)
        {
            // An application that merely gets no processor stands still as well, but not with output waiting.
            Assert.InRange(await Eventually.SettlesAsync(() => pools.Outstanding > 0 ? Volatile.Read(ref written) : 0), 1, Chunks - 1);
            Assert.InRange(pools.OutstandingBytes, 1, (4 * Limit) + (2 * Chunk) + (32 * Block));
        }
        else
        {
            await Eventually.HoldsAsync(() => Volatile.Read(ref written) == Chunks);
        }

        using var received = new MemoryStream();
        await stream.CopyToAsync(received).OrTimeout();
        var answer = received.ToArray();
        var expected = Enumerable.Range(0, Chunks).SelectMany(static i => TestData.Bytes(Chunk, seed: i)).ToArray();
        TestData.AssertSame(expected, answer.AsMemory(answer.AsSpan().IndexOf("\r\n\r\n"u8) + 4));
    }

    [Theory, AllTransports(Wire.Plain, Wire.Tls)]
    public async Task Without_a_response_buffer_every_answer_still_arrives(TransportKind kind, Wire wire)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            Applications.EchoWholeAsync,
            Over(wire) with
            {
                Kestrel = static options => options.Limits.MaxResponseBufferSize = 0,

                // The least that still is a limit: every flush waits until the kernel has taken all.
                Transport = new TransportSettings { MaxWriteBufferSize = 1 },
            });
        using var client = host.CreateClient();

        foreach (var size in new[] { 0, 1, 1000, 3_000_000 })
        {
            var sent = TestData.Bytes(size);
            using var response = await client.PostAsync("/", new ByteArrayContent(sent)).OrTimeout();
            TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync().OrTimeout());
        }
    }

    private static HostSettings Over(Wire wire) => wire is Wire.Tls ? HostSettings.Https : new HostSettings();

    private static async Task<Stream> OpenAsync(TransportHost host, Wire wire)
    {
        // Small, that little is under way; but not smaller than a segment of the loopback: with 32 KiB a transfer took many seconds now and then.
        var stream = new NetworkStream(await host.ConnectAsync(static socket => socket.ReceiveBufferSize = 256 * 1024), ownsSocket: true);
        if (wire is Wire.Plain)
        {
            return stream;
        }

        var tls = new SslStream(stream);
        await tls.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
        {
            TargetHost = "localhost",
            RemoteCertificateValidationCallback = static (_, certificate, _, _) =>
                certificate?.GetCertHashString() == TestCertificate.Instance.GetCertHashString(),
        }).OrTimeout();
        return tls;
    }
}
