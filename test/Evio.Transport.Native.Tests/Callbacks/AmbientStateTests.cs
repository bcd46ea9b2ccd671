using System.Collections.Concurrent;
using System.Globalization;
using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>What one callback sets for its thread or its context, no other one sees.</summary>
public sealed class AmbientStateTests
{
    private static readonly AsyncLocal<string?> Local = new();
    private static readonly CultureInfo Left = (CultureInfo)CultureInfo.InvariantCulture.Clone();

    public static TheoryData<string, LoopScheduling> Modes
    {
        get
        {
            var modes = new TheoryData<string, LoopScheduling>();
            foreach (var scheme in (string[])["tcp", "unix", "tcp-net", "unix-net"])
            {
                modes.Add(scheme, LoopScheduling.Inline);
                modes.Add(scheme, LoopScheduling.Adaptive);
            }

            return modes;
        }
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public async Task NoCallback_SeesWhatAnotherOneLeft(string scheme, LoopScheduling scheduling)
    {
        await using var site = new Site(scheme);
        var seen = new Sightings();
        var closed = new Counter();
        var detached = new Counter();
        var ticks = 0;

        // Its thread's state is not for the loops either.
        Leave(threadToo: false);
        var starting = site.StartAsync(
            new Events
            {
                Serving = _ => seen.Look("Serving"),
                Opened = (_, ref _) => seen.Look("Opened"),
                Data = (connection, input) =>
                {
                    _ = seen.Look("Data");
                    connection.Write(input);
                    return input.SequenceEqual("d"u8) ? EvioAction.Detach : EvioAction.None;
                },

                // What follows in the same event is about the same connection.
                PreWrite = _ => seen.Look("PreWrite", threadToo: false),
                Closed = (_, _) =>
                {
                    closed.Add();
                    return seen.Look("Closed");
                },
                Detached = (_, socket) =>
                {
                    socket.Dispose();
                    detached.Add();
                    return seen.Look("Detached");
                },
                Tick = (out delay) =>
                {
                    delay = ++ticks < 5 ? TimeSpan.FromMilliseconds(1) : TimeSpan.Zero;
                    return seen.Look("Tick");
                },
            },
            scheduling);
        Clear();
        await starting;

        var loop = site.Server!.Loops[0];
        for (var i = 0; i < 10; i++)
        {
            using var first = await site.ConnectAsync();
            using var second = await site.ConnectAsync();
            await first.ExpectEchoAsync("a");
            await second.ExpectEchoAsync("b");
            await PostAsync(loop, seen, schedule: false);
            await PostAsync(loop, seen, schedule: true);
            await second.ExpectEchoAsync("d");
            await detached.ReachesAsync(i + 1);
            first.Dispose();
            await closed.ReachesAsync(i + 1);
        }

        seen.AssertClean("Serving", "Opened", "Data", "PreWrite", "Closed", "Detached", "Tick", "posted", "timer");
    }

    /// <summary>All in one event of the listener.</summary>
    [Theory]
    [InlineData("tcp")]
    [InlineData("unix")]
    public async Task Opened_OfOneBatchSeesNothingOfTheOthers(string scheme)
    {
        const int Count = 20;
        await using var site = new Site(scheme);
        var seen = new Sightings();
        var opened = new Counter();
        await site.StartAsync(
            new Events
            {
                Opened = (_, ref _) =>
                {
                    opened.Add();
                    return seen.Look("Opened");
                },
            },
            LoopScheduling.Inline);
        using (new BusyLoop(site.Server!.Loops[0]))
        {
            for (var i = 0; i < Count; i++)
            {
                _ = await site.ConnectAsync();
            }
        }

        await opened.ReachesAsync(Count);
        seen.AssertClean("Opened");
    }

    [Theory]
    [InlineData("udp", LoopScheduling.Inline)]
    [InlineData("udp", LoopScheduling.Adaptive)]
    [InlineData("udp-net", LoopScheduling.Inline)]
    [InlineData("udp-net", LoopScheduling.Adaptive)]
    public async Task Datagrams_OfOneBatchSeeNothingOfTheOthers(string scheme, LoopScheduling scheduling)
    {
        const int Count = 30;
        var seen = new Sightings();
        var received = new Counter();
        await using var server = await EvioServer.StartAsync(
            new Events
            {
                Scheduling = scheduling,
                Data = (connection, input) =>
                {
                    received.Add();
                    connection.Write(input);
                    _ = seen.Look("Data");
                    return input[0] % 3 == 0 ? throw new InvalidTimeZoneException() : EvioAction.None;
                },
                DatagramFailed = (_, _) => received.Add(),
            },
            $"{scheme}://127.0.0.1:0").Within();
        using var first = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        using var second = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        using (new BusyLoop(server.Loops[0]))
        {
            for (var i = 0; i < Count; i++)
            {
                (i % 2 == 0 ? first : second).SendTo([(byte)i], server.Addresses[0]);
            }
        }

        await received.ReachesAsync(Count + (Count / 3));
        seen.AssertClean("Data");
    }

    /// <summary>A callback within another one's: it sees nothing of that, and takes nothing away from it.</summary>
    [Theory]
    [InlineData("tcp")]
    [InlineData("tcp-net")]
    public async Task Closed_WithinAnotherConnectionsDataSeesNothingOfItAndTakesNothingAway(string scheme)
    {
        await using var site = new Site(scheme);
        var seen = new Sightings();
        var connections = new ConcurrentQueue<Connection>();
        var kept = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
        var within = false;
        var closedWithin = false;
        await site.StartAsync(
            new Events
            {
                Opened = (connection, ref _) =>
                {
                    connections.Enqueue(connection);
                    return EvioAction.None;
                },
                Data = (connection, input) =>
                {
                    if (!input.SequenceEqual("c"u8))
                    {
                        connection.Write(input);
                        return EvioAction.None;
                    }

                    Local.Value = "mine";
                    CultureInfo.CurrentCulture = Left;
                    SynchronizationContext.SetSynchronizationContext(new SynchronizationContext());
                    within = true;
                    connections.First(other => other != connection).Close();
                    within = false;
                    kept.SetResult($"{Local.Value} {ReferenceEquals(CultureInfo.CurrentCulture, Left)} {SynchronizationContext.Current is not null}");
                    return EvioAction.None;
                },
                Closed = (_, _) =>
                {
                    closedWithin |= within;
                    return seen.Look("Closed");
                },
            },
            LoopScheduling.Inline);
        using var first = await site.ConnectAsync();
        await first.ExpectEchoAsync("a");
        using var second = await site.ConnectAsync();
        await second.ExpectEchoAsync("b");

        await second.WriteAsync("c");

        Assert.Equal("mine True True", await kept.Task.Within());
        Assert.True(closedWithin);
        seen.AssertClean("Closed");
    }

    [Fact]
    public async Task ACallback_ThatHasLostItsLoopLeavesNothingForTheThreadsNextOne()
    {
        await using var site = new Site("tcp");
        var seen = new Sightings();
        using var release = new SemaphoreSlim(0);
        await site.StartAsync(
            new Events
            {
                Data = (connection, input) =>
                {
                    _ = seen.Look("Data");
                    if (input.SequenceEqual("w"u8))
                    {
                        release.Await();
                    }

                    connection.Write(input);
                    return EvioAction.None;
                },
            },
            LoopScheduling.Adaptive);
        using var first = await site.ConnectAsync();
        using var second = await site.ConnectAsync();
        for (var i = 0; i < 20; i++)
        {
            // The thread of the first waits, and another one answers the second.
            await first.WriteAsync("w");
            await second.ExpectEchoAsync("b");
            release.Release();
            await first.ExpectAsync("w");
            await first.ExpectEchoAsync("a");
        }

        seen.AssertClean("Data");
    }

    [Theory]
    [InlineData(LoopScheduling.Inline)]
    [InlineData(LoopScheduling.Adaptive)]
    [InlineData(LoopScheduling.ThreadPool)]
    public async Task Calls_SeeNothingOfEachOther(LoopScheduling scheduling)
    {
        const int Count = 50;
        var seen = new Sightings { ThreadToo = scheduling != LoopScheduling.ThreadPool };
        var made = new Counter();
        await using var group = new TestGroup(scheduling: scheduling);
        await using var server = await Server.StartAsync(group, socket =>
        {
            _ = seen.Look("accepted");
            return new RecordingHandler(socket)
            {
                Ready = (_, _) =>
                {
                    _ = seen.Look("event");
                    made.Add();
                },
            };
        });
        for (var i = 0; i < Count; i++)
        {
            Assert.True(group.Loops[0].TryPost(new Call(seen, made)));
        }

        await made.ReachesAsync(Count);
        for (var i = 0; i < Count; i++)
        {
            server.Connect().Send([1]);
        }

        await made.ReachesAsync(2 * Count);
        seen.AssertClean("call", "accepted", "event");
    }

    [Fact]
    public async Task APostedCall_CannotHaveTheProcessWaitForTheLoop()
    {
        await using var group = new TestGroup();
        await group.RunAsync(static () => Thread.CurrentThread.IsBackground = false);

        await group.RunAsync(static () => Assert.True(Thread.CurrentThread.IsBackground));
    }

    private static async Task PostAsync(EventLoop loop, Sightings seen, bool schedule)
    {
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        void Run(object? what)
        {
            _ = seen.Look((string)what!);
            done.SetResult();
        }

        if (schedule)
        {
            loop.Schedule(TimeSpan.Zero, Run, "timer");
        }
        else
        {
            Assert.True(loop.TryPost(Run, "posted"));
        }

        await done.Task.Within();
    }

    private static void Leave(bool threadToo)
    {
        Local.Value = "left";
        CultureInfo.CurrentCulture = CultureInfo.CurrentUICulture = Left;
        SynchronizationContext.SetSynchronizationContext(new SynchronizationContext());
        if (threadToo)
        {
            Thread.CurrentThread.Priority = ThreadPriority.BelowNormal;
            Thread.CurrentThread.Name = "left";
            _ = ExecutionContext.SuppressFlow();
        }
    }

    private static void Clear()
    {
        Local.Value = null;
        CultureInfo.CurrentCulture = CultureInfo.CurrentUICulture = CultureInfo.InvariantCulture;
        SynchronizationContext.SetSynchronizationContext(null);
    }

    private sealed class Call(Sightings seen, Counter made) : ILoopCall
    {
        public LoopCallCost Cost { get; set; }

        public IThreadPoolWorkItem? Run()
        {
            _ = seen.Look("call");
            made.Add();
            return null;
        }

        public void Execute() => Run();
    }

    /// <summary>What callbacks saw when they began. Each leaves all that it can.</summary>
    private sealed class Sightings
    {
        private readonly ConcurrentQueue<(string Where, string What)> _seen = new();

        internal bool ThreadToo { get; init; } = true;

        internal EvioAction Look(string where, bool threadToo = true)
        {
            var thread = Thread.CurrentThread;
            List<string> what = [];
            Note(Local.Value is not null, "async local");
            Note(ReferenceEquals(CultureInfo.CurrentCulture, Left), "culture");
            Note(ReferenceEquals(CultureInfo.CurrentUICulture, Left), "UI culture");
            Note(SynchronizationContext.Current is not null, "synchronization context");
            Note(ExecutionContext.IsFlowSuppressed(), "flow suppressed");
            Note(thread.Priority != ThreadPriority.Normal, "priority");
            Note(thread.Name == "left", "name");
            _seen.Enqueue((where, string.Join(", ", what)));
            if (!ExecutionContext.IsFlowSuppressed())
            {
                Leave(threadToo && ThreadToo);
            }

            return EvioAction.None;

            void Note(bool isLeft, string name)
            {
                if (isLeft)
                {
                    what.Add(name);
                }
            }
        }

        internal void AssertClean(params string[] everywhere)
        {
            Assert.Equal(everywhere.Order(), _seen.Select(static sighting => sighting.Where).Distinct().Order());
            Assert.Empty(_seen.Where(static sighting => sighting.What.Length > 0).Select(static sighting => $"{sighting.Where}: {sighting.What}").Distinct());
        }
    }
}
