using System.Buffers;
using System.Net.Sockets;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport.Tests.Connections;

/// <summary>Handlers that cost their threads the loops, again and again, while every stream has to stay what it was.</summary>
public sealed class TakeOverTests
{
    private const int Loops = 32;
    private const int Connections = 64;
    private const int StreamLength = 64 * 1024;
    private const int TakeOvers = 1000;

    private int _takeOvers;

    [Fact]
    public async Task Streams_survive_thousands_of_take_overs()
    {
        var seed = TestData.NewSeed();
        await using var transport = TransportInstance.Create(
            TransportKind.EvioAdaptive,
            new TransportSettings { LoopCount = Loops, LoadBalance = LoadBalance.RoundRobin, MaxBlockedThreads = 2 * Connections });
        await using var listener = await transport.BindAsync();

        for (var round = 0; Volatile.Read(ref _takeOvers) < TakeOvers; round++)
        {
            var pairs = new List<ConnectedPair>();
            for (var i = 0; i < Connections; i++)
            {
                pairs.Add(await ConnectedPair.ThroughAsync(listener));
            }

            await Task.WhenAll(pairs.Select((pair, i) => RunAsync(pair, HashCode.Combine(seed, round, i)))).OrTimeout();
            foreach (var pair in pairs)
            {
                await pair.DisposeAsync();
            }
        }
    }

    private async Task RunAsync(ConnectedPair pair, int seed)
    {
        var sent = TestData.Bytes(StreamLength, seed);
        var serve = Task.Run(() => ServeAsync(pair.Connection, new Random(seed)));
        var receive = pair.Client.ReceiveToEndAsync();
        var random = new Random(~seed);
        for (var at = 0; at < sent.Length;)
        {
            var length = Math.Min(random.Next(1, 8 * 1024), sent.Length - at);
            await pair.Client.SendAllAsync(sent.AsMemory(at, length));
            at += length;
        }

        pair.Client.Shutdown(SocketShutdown.Send);
        TestData.AssertSame(sent, await receive);
        await serve;
    }

    /// <summary>An echo that holds its thread wherever it may have been the loop's.</summary>
    private async Task ServeAsync(ConnectionContext connection, Random random)
    {
        var loop = connection.Features.Get<IEventLoopFeature>()!.Loop;
        while (true)
        {
            var result = await connection.Transport.Input.ReadAsync();
            Block(random, loop);
            foreach (var segment in result.Buffer)
            {
                connection.Transport.Output.Write(segment.Span[..(segment.Length / 2)]);
                Block(random, loop);
                await connection.Transport.Output.WriteAsync(segment[(segment.Length / 2)..]);
            }

            Block(random, loop);
            connection.Transport.Input.AdvanceTo(result.Buffer.End);
            Block(random, loop);
            if (result.IsCompleted)
            {
                break;
            }
        }

        await connection.Transport.Output.CompleteAsync();
    }

    /// <summary>Holds the thread for about as long as a loop may be held, so that it is lost sometimes at the last moment and sometimes just not.</summary>
    private void Block(Random random, EventLoop loop)
    {
        if (random.Next(3) > 0 || !loop.IsCurrent)
        {
            return;
        }

        Thread.Sleep(random.Next(5));
        if (!loop.IsCurrent)
        {
            Interlocked.Increment(ref _takeOvers);
        }
    }
}
