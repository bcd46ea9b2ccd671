using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Tests;

/// <summary>The loops that the factory shows, and how connections spread over them.</summary>
public sealed class LoopTests
{
    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 1)]
    [InlineData(3, 3)]
    public async Task There_are_as_many_loops_as_asked_for(int loopCount, int expected)
    {
        await using var transport = TransportInstance.Create(TransportKind.EvioThreadPool, new TransportSettings { LoopCount = loopCount });
        await transport.BindAsync();

        var loops = transport.Services.GetRequiredService<EvioTransportFactory>().Loops;

        Assert.Equal(Enumerable.Range(0, expected), loops.Select(static loop => loop.Index));
    }

    [Fact]
    public async Task There_is_a_loop_per_processor_by_default()
    {
        await using var transport = TransportInstance.Create(TransportKind.EvioThreadPool);
        await transport.BindAsync();

        Assert.Equal(Environment.ProcessorCount, transport.Services.GetRequiredService<EvioTransportFactory>().Loops.Count);
    }

    [Theory]
    [InlineData(LoadBalance.Random)]
    [InlineData(LoadBalance.RoundRobin)]
    [InlineData(LoadBalance.LeastConnections)]
    public async Task Open_connections_are_counted_and_ended_ones_are_not(LoadBalance balance)
    {
        await using var connections = await LoopConnections.CreateAsync(balance, loopCount: 2);
        await connections.OpenAsync(10);
        Assert.Equal(10, connections.Counts.Sum());

        await connections.CloseAsync(4);
        await Eventually.HoldsAsync(() => connections.Counts.Sum() == 6);

        await connections.CloseAsync(6);
        await Eventually.HoldsAsync(() => connections.Counts.All(static count => count == 0));
    }

    [Theory, EvioTransports]
    public async Task A_connection_tells_its_loop(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(
            kind, new TransportSettings { LoopCount = 3, LoadBalance = LoadBalance.RoundRobin });
        await using var listener = await transport.BindAsync();
        var loops = transport.Services.GetRequiredService<EvioTransportFactory>().Loops;
        for (var i = 0; i < 6; i++)
        {
            await using var pair = await ConnectedPair.ThroughAsync(listener);

            Assert.Same(loops[i % 3], pair.Connection.Features.Get<IEventLoopFeature>()?.Loop);
        }
    }

    [Fact]
    public async Task Round_robin_takes_strict_turns()
    {
        await using var connections = await LoopConnections.CreateAsync(LoadBalance.RoundRobin, loopCount: 4);
        for (var expected = 1; expected <= 3; expected++)
        {
            await connections.OpenAsync(4);

            Assert.Equal([expected, expected, expected, expected], connections.Counts);
        }
    }

    [Fact]
    public async Task Least_connections_fills_the_gaps_that_ended_connections_leave()
    {
        await using var connections = await LoopConnections.CreateAsync(LoadBalance.LeastConnections, loopCount: 3);
        await connections.OpenAsync(9);
        Assert.Equal([3, 3, 3], connections.Counts);

        await connections.CloseAsync(5);
        await Eventually.HoldsAsync(() => connections.Counts.Sum() == 4);
        await connections.OpenAsync(5);

        Assert.Equal([3, 3, 3], connections.Counts);
    }

    private sealed class LoopConnections : IAsyncDisposable
    {
        private readonly TransportInstance _transport;
        private readonly IConnectionListener _listener;
        private readonly IReadOnlyList<EventLoop> _loops;
        private readonly Queue<ConnectedPair> _open = new();

        private LoopConnections(TransportInstance transport, IConnectionListener listener)
        {
            _transport = transport;
            _listener = listener;
            _loops = transport.Services.GetRequiredService<EvioTransportFactory>().Loops;
        }

        public int[] Counts => [.. _loops.Select(static loop => loop.ConnectionCount)];

        public static async Task<LoopConnections> CreateAsync(LoadBalance balance, int loopCount)
        {
            var transport = TransportInstance.Create(
                TransportKind.EvioThreadPool, new TransportSettings { LoopCount = loopCount, LoadBalance = balance });
            return new LoopConnections(transport, await transport.BindAsync());
        }

        public async Task OpenAsync(int count)
        {
            for (var i = 0; i < count; i++)
            {
                _open.Enqueue(await ConnectedPair.ThroughAsync(_listener));
            }
        }

        /// <summary>Ends the oldest connections.</summary>
        public async Task CloseAsync(int count)
        {
            for (var i = 0; i < count; i++)
            {
                await _open.Dequeue().DisposeAsync();
            }
        }

        public async ValueTask DisposeAsync()
        {
            await CloseAsync(_open.Count);
            await _transport.DisposeAsync();
        }
    }
}
