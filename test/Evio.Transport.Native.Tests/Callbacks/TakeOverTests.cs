namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Callbacks that cost their threads the loops, again and again, while every stream has to stay what it was.</summary>
public sealed class TakeOverTests
{
    private const int Loops = 32;
    private const int Connections = 64;
    private const int StreamLength = 64 * 1024;
    private const int TakeOvers = 1000;

    [Fact]
    public async Task Streams_posted_calls_and_timers_survive_thousands_of_take_overs()
    {
        var seed = Payload.NewSeed();
        await using var site = new Site("tcp");
        var takeOvers = new Counter();
        var posted = new Counter();
        var fired = new Counter();
        var expectedCalls = 0L;
        await site.StartAsync(
            new Events
            {
                NumLoops = Loops,
                LoadBalance = LoadBalance.RoundRobin,
                MaxLateThreads = 2 * Connections,
                Opened = (connection, ref _) =>
                {
                    connection.Context = new Stream();
                    return EvioAction.None;
                },
                Data = (connection, input) =>
                {
                    var stream = (Stream)connection.Context!;
                    Assert.Equal(1, Interlocked.Increment(ref stream.Inside));
                    var random = new Random(HashCode.Combine(seed, connection.BytesReceived));
                    connection.Write(input[..(input.Length / 2)]);
                    if (random.Next(3) == 0)
                    {
                        // What is posted and scheduled before is left for whoever takes the loop over.
                        Interlocked.Increment(ref expectedCalls);
                        Assert.True(connection.Loop.TryPost(_ => posted.Add(), null));
                        _ = connection.Loop.Schedule(TimeSpan.FromMilliseconds(random.Next(4)), _ => fired.Add(), null);
                    }

                    if (Block(random, connection.Loop))
                    {
                        takeOvers.Add();
                    }

                    connection.Write(input[(input.Length / 2)..]);
                    Assert.Equal(0, Interlocked.Decrement(ref stream.Inside));
                    return EvioAction.None;
                },
                Closed = (_, error) =>
                {
                    Assert.Null(error);
                    return EvioAction.None;
                },
            },
            LoopScheduling.Adaptive);

        for (var round = 0; takeOvers.Value < TakeOvers; round++)
        {
            await Task.WhenAll(Enumerable.Range(0, Connections).Select(i => EchoAsync(site, HashCode.Combine(seed, round, i))));
        }

        await posted.ReachesAsync(Interlocked.Read(ref expectedCalls));
        await fired.ReachesAsync(Interlocked.Read(ref expectedCalls));
        await site.Server!.StopAsync(TimeSpan.Zero).Within();
        Assert.Equal(expectedCalls, posted.Value);
        Assert.Equal(expectedCalls, fired.Value);
    }

    /// <summary>Holds the thread for about as long as a loop may be held, so that it is lost sometimes at the last moment and sometimes just not.</summary>
    /// <returns>Whether the loop was lost.</returns>
    private static bool Block(Random random, EventLoop loop)
    {
        Thread.Sleep(random.Next(5));
        return !loop.IsCurrent;
    }

    private static async Task EchoAsync(Site site, int seed)
    {
        using var client = await site.ConnectAsync();
        var random = new Random(seed);
        var sent = Payload.Random(seed, StreamLength);
        var echo = client.ReadAsync(sent.Length);
        for (var at = 0; at < sent.Length;)
        {
            var length = Math.Min(random.Next(1, 8 * 1024), sent.Length - at);
            await client.WriteAsync(sent.AsMemory(at, length));
            at += length;
        }

        Payload.AssertSame(sent, await echo);
    }

    private sealed class Stream
    {
        public int Inside;
    }
}
