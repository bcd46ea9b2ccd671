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
                MaxBlockedThreads = 2 * Connections,
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

    /// <summary>What others want of a connection waits for its late callback, and for the next one that is late, and loses neither its order nor a byte.</summary>
    [Theory]
    [InlineData("tcp", nameof(Events.Opened))]
    [InlineData("tcp", nameof(Events.Data))]
    [InlineData("tcp-net", nameof(Events.Opened))]
    [InlineData("tcp-net", nameof(Events.Data))]
    public async Task Wakes_and_sends_wait_for_late_callbacks(string scheme, string late)
    {
        const int Wakes = 4;
        const int Sends = 300;
        await using var site = new Site(scheme);
        var isLate = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        var goOn = new ManualResetEventSlim();
        var woken = new Counter();
        var stream = new Stream();
        await site.StartAsync(
            new Events
            {
                Opened = (connection, ref _) => late == nameof(Events.Opened) ? BeLate(connection) : EvioAction.None,
                Data = (connection, input) =>
                {
                    if (!input.IsEmpty)
                    {
                        return BeLate(connection);
                    }

                    Assert.Equal(1, Interlocked.Increment(ref stream.Inside));
                    LoseLoop(connection.Loop);
                    connection.Write("."u8);
                    Assert.Equal(0, Interlocked.Decrement(ref stream.Inside));
                    woken.Add();
                    return EvioAction.None;
                },
            },
            LoopScheduling.Adaptive);

        var client = await site.ConnectAsync();
        if (late == nameof(Events.Data))
        {
            await client.WriteAsync("go");
        }

        var connection = await isLate.Task.Within();
        var sends = new List<Task>();
        for (var i = 0; i < Sends; i++)
        {
            if (i % (Sends / Wakes) == 0)
            {
                Assert.True(connection.Wake());
            }

            sends.Add(connection.SendAsync(BitConverter.GetBytes(i)));
        }

        goOn.Set();
        await Task.WhenAll(sends).Within();
        await woken.ReachesAsync(Wakes);
        var received = await client.ReadAsync(1 + Wakes + (Sends * sizeof(int)));
        Assert.Equal((byte)'!', received[0]);
        Assert.Equal(Wakes, CountAnswersBetween(received.AsSpan(1), Sends));
        await site.Server!.StopAsync().Within();

        EvioAction BeLate(Connection connection)
        {
            Assert.Equal(1, Interlocked.Increment(ref stream.Inside));
            LoseLoop(connection.Loop);
            isLate.SetResult(connection);
            goOn.Wait();
            connection.Write("!"u8);
            Assert.Equal(0, Interlocked.Decrement(ref stream.Inside));
            return EvioAction.None;
        }
    }

    /// <summary>Numbers in their order, between which the answers to the wakes stand wherever their callbacks have returned.</summary>
    private static int CountAnswersBetween(ReadOnlySpan<byte> received, int numbers)
    {
        var answers = 0;
        for (var number = 0; !received.IsEmpty;)
        {
            if (number < numbers && received.StartsWith(BitConverter.GetBytes(number)))
            {
                number++;
                received = received[sizeof(int)..];
            }
            else
            {
                Assert.Equal((byte)'.', received[0]);
                answers++;
                received = received[1..];
            }
        }

        return answers;
    }

    /// <summary>Holds the thread until the loop is another one's: nothing else runs what is posted.</summary>
    private static void LoseLoop(EventLoop loop)
    {
        using var wentOn = new ManualResetEventSlim();
        Assert.True(loop.TryPost(static state => ((ManualResetEventSlim)state!).Set(), wentOn));
        Assert.True(wentOn.Wait(Site.Limit));
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
