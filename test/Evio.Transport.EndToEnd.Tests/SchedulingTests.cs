using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Handlers that block, on the thread pool, where they may.</summary>
public sealed class SchedulingTests
{
    private const int Connections = 16;

    private static readonly HostSettings OneLoop = new() { Transport = new TransportSettings { LoopCount = 1 } };

    [Theory, InlineData(TransportKind.EvioThreadPool), InlineData(TransportKind.Sockets)]
    public async Task Requests_behind_a_handler_that_blocks_are_answered(TransportKind kind)
    {
        using var others = new CountdownEvent(Connections - 1);
        await using var host = await TransportHost.StartAsync(
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
            },
            OneLoop);
        await using var clients = await Clients.ConnectAsync(host);

        // The first one blocks, and what comes with it in the same pass of the loop has to get past it. Nothing comes later that could help.
        await Task.WhenAll(clients.Select((client, i) => client.SendAllAsync($"GET {(i == 0 ? "/block" : "/")} HTTP/1.1\r\nHost: h\r\n\r\n"))).OrTimeout();

        foreach (var client in clients)
        {
            Assert.EndsWith("done", await client.ReceiveUntilAsync("done").OrTimeout(), StringComparison.Ordinal);
        }
    }

    [Theory, InlineData(TransportKind.EvioThreadPool), InlineData(TransportKind.Sockets)]
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

        public ValueTask DisposeAsync()
        {
            ForEach(static client => client.Dispose());
            return default;
        }
    }
}
