using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Tests that look at the whole process, or change it, and so run while no others do.</summary>
[CollectionDefinition(nameof(AloneCollection), DisableParallelization = true)]
public sealed class AloneCollection;

/// <summary>Threads, descriptors, processor time and memory of a server.</summary>
[Collection(nameof(AloneCollection))]
public sealed class AloneTests
{
    public static TheoryData<string> Schemes => Site.Schemes;

    public static TheoryData<string, string> IdleCases
    {
        get
        {
            var cases = new TheoryData<string, string>();
            foreach (string scheme in Site.Schemes)
            {
                cases.Add(scheme, "nothing");
                cases.Add(scheme, "ticks");
                cases.Add(scheme, "wakes");
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Shutdown_EndsEveryConnectionThreadAndDescriptor(string scheme)
    {
        // The first one opens what the runtime then keeps.
        await RunAsync(scheme);
        var before = OpenDescriptors();

        await RunAsync(scheme);

        // Those of earlier tests may go meanwhile. Sockets have names of their own, pollers can only be counted.
        var after = OpenDescriptors();
        Assert.Empty(after.Where(IsSocket).Except(before));
        Assert.True(after.Count(static target => !IsSocket(target)) <= before.Count(static target => !IsSocket(target)));

        static bool IsSocket(string target) => target.StartsWith("socket:", StringComparison.Ordinal);

        // Sockets, and what pollers are made of.
        static IEnumerable<string> OpenDescriptors() =>
            Directory.GetFiles("/proc/self/fd")
                .Select(static path => new FileInfo(path).LinkTarget)
                .OfType<string>()
                .Where(static target => target.Split(':')[0] is "socket" or "anon_inode")
                .Order()
                .ToArray();
    }

    private static async Task RunAsync(string scheme)
    {
        const int Clients = 10;
        await using var site = new Site(scheme);
        var opened = new Counter();
        var closed = new Counter();
        var events = new Events
        {
            NumLoops = 3,
            Opened = (_, ref _) =>
            {
                opened.Add();
                return EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
            Tick = (out delay) =>
            {
                delay = TimeSpan.FromMilliseconds(50);
                return opened.Value == Clients ? EvioAction.Shutdown : EvioAction.None;
            },
        };
        var server = await site.StartAsync(events);
        var threads = await Task.WhenAll(server.Loops.Select(LoopThread.OfAsync));
        Assert.All(threads, static thread => Assert.True(thread.Exists));

        await Task.WhenAll(Enumerable.Range(0, Clients).Select(async _ =>
        {
            using var client = await site.ConnectAsync();
            Assert.Empty(await client.ReadToEndAsync());
        }));
        await server.Completion.Within();

        Assert.Equal(Clients, opened.Value);
        Assert.Equal(Clients, closed.Value);
        Assert.All(threads, static thread => thread.WaitForEnd());
    }

    [Theory]
    [MemberData(nameof(IdleCases))]
    public async Task IdleServer_DoesNotSpin(string scheme, string activity)
    {
        await using var site = new Site(scheme);
        var opened = new TaskCompletionSource<Connection>(TaskCreationOptions.RunContinuationsAsynchronously);
        var woken = new Counter();
        var server = await site.StartAsync(new Events
        {
            Tick = (out delay) =>
            {
                delay = TimeSpan.FromMilliseconds(activity == "ticks" ? 50 : 0);
                return EvioAction.None;
            },
            Opened = (connection, ref _) =>
            {
                opened.SetResult(connection);
                return EvioAction.None;
            },
            Data = (_, _) =>
            {
                woken.Add();
                return EvioAction.None;
            },
        });
        var thread = await LoopThread.OfAsync(server.Loops[0]);
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();
        if (activity == "wakes")
        {
            Assert.True(connection.Wake());
            await woken.ReachesAsync(1);
        }

        await thread.AssertIdleAsync();
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task SteadyEcho_AllocatesNothingOnTheLoop(string scheme)
    {
        const int Messages = 4000;
        const int WarmUp = 2000;
        await using var site = new Site(scheme);
        var count = 0;
        long before = 0;
        long after = 0;
        await site.StartAsync(new Events
        {
            Data = (connection, input) =>
            {
                count++;
                if (count == WarmUp)
                {
                    before = GC.GetAllocatedBytesForCurrentThread();
                }
                else if (count == Messages)
                {
                    after = GC.GetAllocatedBytesForCurrentThread();
                }

                connection.Write(input);
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        var message = new byte[64];
        for (var i = 0; i < Messages; i++)
        {
            _ = await client.EchoAsync(message);
        }

        await site.Server!.StopAsync().Within();

        // Nothing per message. What may come once, whenever it comes, is the event that a Lock makes when a thread first has to wait for it.
        Assert.InRange(after - before, 0, (Messages - WarmUp) / 8);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task OutOfDescriptors_ConnectionsLiveAndAcceptingRecovers(string scheme)
    {
        await using var site = new Site(scheme);
        var opened = new Counter();
        var server = await site.StartAsync(new Events
        {
            Opened = (_, ref _) =>
            {
                opened.Add();
                return EvioAction.None;
            },
            Data = static (connection, input) =>
            {
                connection.Write(input);
                return EvioAction.None;
            },
        });
        using var living = await site.ConnectAsync();
        await living.ExpectEchoAsync("x");
        using var waiting = Client.NewSocket(server.Addresses[0]);

        living.Socket.ReceiveTimeout = (int)Site.Limit.TotalMilliseconds;
        await DescriptorShortage.MakeThreadsAsync();
        using (new DescriptorShortage())
        {
            // The kernel establishes it, but nobody can accept it.
            waiting.Connect(server.Addresses[0]);
            for (var i = 0; i < 20; i++)
            {
                Assert.Equal(1, living.Socket.Send("y"u8));
                Assert.Equal(1, living.Socket.Receive(new byte[1]));
            }

            Assert.Equal(1, opened.Value);
        }

        await opened.ReachesAsync(2);
        using var next = await site.ConnectAsync();
        await next.ExpectEchoAsync("z");
    }
}
