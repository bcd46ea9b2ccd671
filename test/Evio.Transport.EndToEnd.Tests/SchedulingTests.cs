using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Handlers that block, where they may.</summary>
public sealed class SchedulingTests
{
    private const int Connections = 16;

    private static readonly HostSettings OneLoop = new() { Transport = new TransportSettings { LoopCount = 1 } };

    [Theory, InlineData(TransportKind.EvioThreadPool), InlineData(TransportKind.EvioAdaptive), InlineData(TransportKind.Sockets)]
    public async Task Requests_behind_a_handler_that_blocks_are_answered(TransportKind kind)
    {
        using var others = new CountdownEvent(Connections - 1);
        await using var host = await StartWarmableAsync(
            kind,
            context =>
            {
                if (context.Request.Path == "/block")
                {
                    // It waits for those that may be queued behind it.
                    Assert.True(others.Wait(TestTimeouts.Default));
                }
                else
                {
                    others.Signal();
                }

                return context.Response.WriteAsync("done");
            });
        await using var clients = await Clients.ConnectAsync(host);
        await clients.WarmUpAsync();

        // The first one blocks, and what comes with it in the same pass of the loop has to get past it. Nothing comes later that could help.
        await Task.WhenAll(clients.Select((client, i) => client.SendAllAsync($"GET {(i == 0 ? "/block" : "/")} HTTP/1.1\r\nHost: h\r\n\r\n"))).OrTimeout();

        foreach (var client in clients)
        {
            Assert.EndsWith("done", await client.ReceiveUntilAsync("done").OrTimeout(), StringComparison.Ordinal);
        }
    }

    [Theory, InlineData(TransportKind.EvioThreadPool), InlineData(TransportKind.EvioAdaptive), InlineData(TransportKind.Sockets)]
    public async Task As_many_handlers_block_at_once_as_the_pool_has_threads(TransportKind kind)
    {
        // More than the pool has at the start, so it has to inject some, which takes it half a second each.
        var blocking = Environment.ProcessorCount + 2;
        using var barrier = new Barrier(blocking);
        await using var host = await TransportHost.StartAsync(
            kind,
            context =>
            {
                Assert.True(barrier.SignalAndWait(TestTimeouts.Default));
                return context.Response.WriteAsync("done");
            },
            OneLoop);
        await using var clients = await Clients.ConnectAsync(host, blocking);

        await Task.WhenAll(clients.Select(static client => client.SendAllAsync("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))).OrTimeout();

        foreach (var client in clients)
        {
            Assert.EndsWith("done", await client.ReceiveUntilAsync("done").OrTimeout(), StringComparison.Ordinal);
        }
    }

    [Theory, InlineData(TransportKind.EvioThreadPool), InlineData(TransportKind.EvioAdaptive), InlineData(TransportKind.Sockets)]
    public async Task An_answer_does_not_wait_for_a_handler_behind_it_that_blocks(TransportKind kind)
    {
        using var answered = new ManualResetEventSlim();
        await using var host = await StartWarmableAsync(
            kind,
            context =>
            {
                if (context.Request.Path == "/block")
                {
                    Assert.True(answered.Wait(TestTimeouts.Default));
                }

                return context.Response.WriteAsync(context.Request.Path == "/block" ? "second" : "first");
            });
        using var client = await host.ConnectAsync();
        await Clients.WarmUpAsync(client);

        // In one piece: the answer to the first one could leave together with that to the second one.
        await client.SendAllAsync("GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /block HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").OrTimeout();

        await client.ReceiveUntilAsync("first").OrTimeout();
        answered.Set();
        await client.ReceiveUntilAsync("second").OrTimeout();
    }

    [Theory, InlineData(TransportKind.EvioThreadPool), InlineData(TransportKind.EvioAdaptive), InlineData(TransportKind.Sockets)]
    public async Task A_handler_may_block_on_its_own_request_body(TransportKind kind)
    {
        using var began = new SemaphoreSlim(0);
        await using var host = await StartWarmableAsync(
            kind,
            context =>
            {
                using var body = new MemoryStream();
                began.Release();
                context.Request.Body.CopyToAsync(body).Wait(TestTimeouts.Default);
                return context.Response.WriteAsync($"{body.Length} bytes");
            });
        using var client = await host.ConnectAsync();
        await Clients.WarmUpAsync(client);

        await client.SendAllAsync("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc").OrTimeout();
        Assert.True(await began.WaitAsync(TestTimeouts.Default));
        await client.SendAllAsync("def").OrTimeout();

        await client.ReceiveUntilAsync("6 bytes").OrTimeout();
    }

    [Theory, InlineData(TransportKind.EvioThreadPool), InlineData(TransportKind.EvioAdaptive), InlineData(TransportKind.Sockets)]
    public async Task A_handler_may_block_on_a_request_to_its_own_server(TransportKind kind)
    {
        TransportHost? self = null;
        await using var host = await TransportHost.StartAsync(
            kind,
            context =>
            {
                if (context.Request.Path == "/inner")
                {
                    return context.Response.WriteAsync("inner");
                }

                using var client = self!.CreateClient();
                var inner = client.GetStringAsync("/inner").WaitAsync(TestTimeouts.Default).GetAwaiter().GetResult();
                return context.Response.WriteAsync($"outer of {inner}");
            },
            OneLoop);
        self = host;
        using var client = host.CreateClient();

        Assert.Equal("outer of inner", await client.GetStringAsync("/").OrTimeout());
    }

    [Fact]
    public async Task With_more_handlers_blocked_than_threads_may_be_late_the_thread_pool_helps_and_the_log_says_so_once()
    {
        const int Limit = 2;
        var blocking = Limit + Environment.ProcessorCount + 2;
        using var barrier = new Barrier(blocking);
        await using var host = await TransportHost.StartAsync(
            TransportKind.EvioAdaptive,
            context =>
            {
                if (context.Request.Path == "/block")
                {
                    Assert.True(barrier.SignalAndWait(TestTimeouts.Default));
                }

                return context.Response.WriteAsync(Thread.CurrentThread.IsThreadPoolThread ? "pool, done" : "loop, done");
            },
            OneLoop with { Transport = OneLoop.Transport with { MaxBlockedThreads = Limit } });
        await using var clients = await Clients.ConnectAsync(host, blocking);

        // Kestrel begins every connection on the thread pool, and reads there until it has to wait: only what comes later is the loop's.
        foreach (var client in clients)
        {
            string answer;
            do
            {
                await AskAsync(client, "/");
                answer = await client.ReceiveUntilAsync("done").OrTimeout();
            }
            while (!answer.EndsWith("loop, done", StringComparison.Ordinal));
        }

        await Task.WhenAll(clients.Select(static client => AskAsync(client, "/block"))).OrTimeout();
        foreach (var client in clients)
        {
            Assert.EndsWith("done", await client.ReceiveUntilAsync("done").OrTimeout(), StringComparison.Ordinal);
        }

        // Different threads say these, and the second one may be the first to get so far.
        await Eventually.HoldsAsync(
            () => Count("ThreadsRecovered") > 0 && Count("ThreadsSaturated") > 0, () => string.Join('\n', host.Logs.OfTransport));
        Assert.Equal((1, 1), (Count("ThreadsSaturated"), Count("ThreadsRecovered")));

        static Task AskAsync(Socket client, string path) => client.SendAllAsync($"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");

        int Count(string name) => host.Logs.OfTransport.Count(entry => entry.EventId.Name == name);
    }

    /// <summary>A host of one loop whose application also answers what warms its connections up.</summary>
    private static Task<TransportHost> StartWarmableAsync(TransportKind kind, RequestDelegate application) => TransportHost.StartAsync(
        kind,
        context => context.Request.Path == "/warm-up" ? context.Response.WriteAsync("warm") : application(context),
        OneLoop);

    private sealed class Clients : List<Socket>, IAsyncDisposable
    {
        internal static async Task<Clients> ConnectAsync(TransportHost host, int count = Connections)
        {
            var clients = new Clients();
            for (var i = 0; i < count; i++)
            {
                clients.Add(await host.ConnectAsync());
            }

            return clients;
        }

        /// <summary>Kestrel begins every connection on the thread pool: only what comes after the first request is the loop's.</summary>
        internal Task WarmUpAsync() => Task.WhenAll(this.Select(WarmUpAsync));

        internal static async Task WarmUpAsync(Socket client)
        {
            await client.SendAllAsync("GET /warm-up HTTP/1.1\r\nHost: h\r\n\r\n").OrTimeout();
            await client.ReceiveUntilAsync("warm").OrTimeout();
        }

        public ValueTask DisposeAsync()
        {
            ForEach(static client => client.Dispose());
            return default;
        }
    }
}
