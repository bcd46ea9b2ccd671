using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What stands between the transport and HTTP (<see cref="ListenOptions.Use"/>).</summary>
public sealed class ConnectionMiddlewareTests
{
    private const string Request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    public enum Failure
    {
        BeforeItYields,
        AfterItYielded,
        AfterItRead,
        AfterTheApplication,
    }

    public enum Next
    {
        Nothing,
        TheClientEnds,
        TheHostStops,
    }

    public static TheoryData<TransportKind, Failure, Next> Failures =>
    [
        .. from kind in Enum.GetValues<TransportKind>()
           from failure in Enum.GetValues<Failure>()
           from next in Enum.GetValues<Next>()
           select (kind, failure, next),
    ];

    [Theory, MemberData(nameof(Failures))]
    public async Task A_middleware_that_throws_ends_its_connection_completely_and_alone(TransportKind kind, Failure failure, Next next)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var closed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var first = 1;
        await using (var host = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("ok"), new HostSettings
        {
            Services = services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools),
            Listen = listen => listen.Use(application => connection =>
            {
                if (Interlocked.Exchange(ref first, 0) == 0)
                {
                    return application(connection);
                }

                connection.ConnectionClosed.Register(closed.SetResult);
                entered.SetResult();
                return failure is Failure.BeforeItYields ? throw new InvalidTimeZoneException() : ThrowLaterAsync(connection, application);
            }),
        }))
        {
            using var client = await host.ConnectAsync();
            if (failure is Failure.AfterItRead or Failure.AfterTheApplication)
            {
                await client.SendAllAsync(Request).OrTimeout();
            }

            await entered.Task.OrTimeout();
            switch (next)
            {
                case Next.TheClientEnds:
                    client.Shutdown(SocketShutdown.Send);
                    break;
                case Next.TheHostStops:
                    await host.StopAsync().OrTimeout();
                    break;
            }

            // Gracefully, so by a FIN. (The client's own FIN is an abort to HTTP, which then may or may not have answered.)
            var answer = Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout());
            if (failure is not Failure.AfterTheApplication)
            {
                Assert.Empty(answer);
            }
            else if (next is Next.Nothing)
            {
                Assert.StartsWith("HTTP/1.1 200 OK", answer, StringComparison.Ordinal);
            }

            await closed.Task.OrTimeout();
            await Eventually.HoldsAsync(() => host.Logs.Entries.Any(static entry => entry.Exception is InvalidTimeZoneException));
            Assert.DoesNotContain(host.Logs.OfTransport, static entry => entry.Level > LogLevel.Debug);
            if (next is not Next.TheHostStops)
            {
                using var other = host.CreateClient();
                Assert.Equal("ok", await other.GetStringAsync("/").OrTimeout());
                await host.StopAsync().OrTimeout();
            }
        }

        Assert.Equal(0, pools.Outstanding);
        Assert.Equal(0, pools.DoubleReturns);

        async Task ThrowLaterAsync(ConnectionContext connection, ConnectionDelegate application)
        {
            switch (failure)
            {
                case Failure.AfterItYielded:
                    await Task.Yield();
                    break;
                case Failure.AfterItRead:
                    await connection.Transport.Input.ReadAsync();
                    break;
                case Failure.AfterTheApplication:
                    await application(connection);
                    break;
            }

            throw new InvalidTimeZoneException();
        }
    }

    [Theory, AllTransports]
    public async Task A_middleware_that_replaces_the_transport_sees_all_bytes(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        var body = TestData.Bytes(1_000_000);
        await using (var host = await TransportHost.StartAsync(kind, Applications.EchoWholeAsync, new HostSettings
        {
            Services = services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools),
            Listen = static listen => listen.Use(Scramble),
        }))
        {
            using var client = await host.ConnectAsync();
            var head = Encoding.ASCII.GetBytes($"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {body.Length}\r\n\r\n");
            var receive = client.ReceiveToEndAsync();
            await client.SendAllAsync(Scrambled([.. head, .. body])).OrTimeout();

            var answer = Scrambled(await receive.OrTimeout());

            Assert.StartsWith("HTTP/1.1 200 OK\r\n", Encoding.ASCII.GetString(answer, 0, 100), StringComparison.Ordinal);
            TestData.AssertSame(body, answer.AsMemory(answer.AsSpan().IndexOf("\r\n\r\n"u8) + 4));
            await host.StopAsync().OrTimeout();
        }

        Assert.Equal(0, pools.Outstanding);
        Assert.Equal(0, pools.DoubleReturns);
    }

    [Theory, AllTransports]
    public async Task Kestrels_own_connection_logging_works(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync("ok"),
            new HostSettings { Listen = static listen => listen.UseConnectionLogging() });
        using var client = host.CreateClient();

        Assert.Equal("ok", await client.GetStringAsync("/").OrTimeout());

        Assert.Contains(host.Logs.Entries, static entry => entry.Category.EndsWith("LoggingConnectionMiddleware", StringComparison.Ordinal));
    }

    [Theory, AllTransports]
    public async Task What_a_middleware_leaves_on_the_connection_reaches_the_application(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static (HttpContext context) =>
            {
                var items = context.Features.GetRequiredFeature<IConnectionItemsFeature>().Items;
                var added = context.Features.GetRequiredFeature<Added>();
                return context.Response.WriteAsync($"{items["key"]} {added.Value} {context.Connection.Id}");
            },
            new HostSettings
            {
                Listen = static listen => listen.Use(static application => connection =>
                {
                    connection.Items["key"] = "item";
                    connection.Features.Set(new Added("feature"));
                    connection.ConnectionId = "own-id";
                    return application(connection);
                }),
            });
        using var client = host.CreateClient();

        Assert.Equal("item feature own-id", await client.GetStringAsync("/").OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_middleware_can_refuse_a_connection_by_abort(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("ok"), new HostSettings
        {
            Listen = static listen => listen.Use(static _ => static async connection =>
            {
                // Not before the client knows that it is connected.
                await connection.Transport.Input.ReadAsync();
                connection.Abort(new ConnectionAbortedException("refused"));
            }),
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(Request).OrTimeout();

        Assert.Equal(SocketError.ConnectionReset, await client.ReceiveErrorAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_middleware_can_write_before_and_after_HTTP(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("ok"), new HostSettings
        {
            Listen = static listen => listen.Use(static application => async connection =>
            {
                await connection.Transport.Output.WriteAsync("before"u8.ToArray());
                await application(connection);
            }),
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync(Request).OrTimeout();

        Assert.StartsWith(
            "beforeHTTP/1.1 200 OK\r\n", Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout()), StringComparison.Ordinal);
    }

    private static ConnectionDelegate Scramble(ConnectionDelegate application) => async connection =>
    {
        var inner = connection.Transport;
        await using var stream = new ScramblingStream(inner.Input.AsStream(leaveOpen: true), inner.Output.AsStream(leaveOpen: true));
        connection.Transport = new DuplexPipe(PipeReader.Create(stream), PipeWriter.Create(stream));
        try
        {
            await application(connection);
            await connection.Transport.Input.CompleteAsync();
            await connection.Transport.Output.CompleteAsync();
        }
        finally
        {
            connection.Transport = inner;
        }
    };

    private static byte[] Scrambled(byte[] bytes) => Array.ConvertAll(bytes, static b => (byte)(b ^ 0x5A));

    private sealed record Added(string Value);

    private sealed record DuplexPipe(PipeReader Input, PipeWriter Output) : IDuplexPipe;

    private sealed class ScramblingStream(Stream input, Stream output) : Stream
    {
        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => true;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            var count = await input.ReadAsync(buffer, cancellationToken);
            Scrambled(buffer[..count].ToArray()).CopyTo(buffer);
            return count;
        }

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            output.WriteAsync(Scrambled(buffer.ToArray()), cancellationToken);

        public override Task FlushAsync(CancellationToken cancellationToken) => output.FlushAsync(cancellationToken);

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override void Flush() => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();
    }
}
