using Evio.Samples.WebApp.Native;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Tests that look at the whole process, or change it, and so run while no others do.</summary>
[CollectionDefinition(nameof(AloneCollection), DisableParallelization = true)]
public sealed class AloneCollection;

/// <summary>Threads, descriptors, processor time and memory of a server.</summary>
[Collection(nameof(AloneCollection))]
public sealed class AloneTests
{
    private const int Callbacks = 4000;
    private const int WarmUp = 2000;

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
        var before = ProcessState.SocketsAndPollers();

        await RunAsync(scheme);

        Assert.Empty(ProcessState.OpenedSince(before));
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
        await site.StartAsync(new Events
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
        using var client = await site.ConnectAsync();
        var connection = await opened.Task.Within();
        if (activity == "wakes")
        {
            Assert.True(connection.Wake());
            await woken.ReachesAsync(1);
        }

        LoopThread.AssertAllIdle();
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task SteadyEcho_AllocatesNothingOnTheLoop(string scheme)
    {
        await using var site = new Site(scheme);
        var (events, allocated) = Measuring(EvioTests.EchoEvents());
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();

        var message = new byte[64];
        for (var i = 0; i < Callbacks; i++)
        {
            _ = await client.EchoAsync(message);
        }

        await AssertNothingAsync(site, allocated);
    }

    /// <summary>The sample's server. Packets end in the middle of a request, so that each callback has both whole requests and parts.</summary>
    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task SteadyPipelinedHttp_AllocatesNothingOnTheLoop(string scheme)
    {
        const int Depth = 16;
        await using var site = new Site(scheme);
        var (events, allocated) = Measuring(HelloServer.Create(loops: 1));
        await site.StartAsync(events);
        using var client = await site.ConnectAsync();

        var request = "GET /plaintext HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n"u8.ToArray();
        var half = request.Length / 2;
        byte[] packet = [.. request[half..], .. Enumerable.Repeat(request, Depth - 1).SelectMany(static bytes => bytes), .. request[..half]];
        await client.WriteAsync(request);
        var response = await client.ReadUntilAsync("Hello, World!");
        var responses = Enumerable.Repeat(response, Depth).SelectMany(static bytes => bytes).ToArray();

        await client.WriteAsync(request.AsMemory(0, half));
        for (var i = 0; i < Callbacks; i++)
        {
            await client.WriteAsync(packet);
            Payload.AssertSame(responses, await client.ReadAsync(responses.Length));
        }

        await AssertNothingAsync(site, allocated);
    }

    /// <summary>Has the loop tell what it allocates from one callback to the next, when everything is warm.</summary>
    /// <remarks>In an adaptive group a machine that pauses for long enough has the loop change its thread: allocations are counted by thread, so that interval is left out.</remarks>
    private static (Events Events, TaskCompletionSource<long> Allocated) Measuring(Events events)
    {
        var allocated = new TaskCompletionSource<long>(TaskCreationOptions.RunContinuationsAsynchronously);
        var data = events.Data!;
        var count = 0;
        var total = 0L;
        var before = 0L;
        Thread? thread = null;
        events.Data = (connection, input) =>
        {
            var now = GC.GetAllocatedBytesForCurrentThread();
            if (++count > WarmUp && thread == Thread.CurrentThread)
            {
                total += now - before;
            }

            (thread, before) = (Thread.CurrentThread, now);
            if (count == Callbacks)
            {
                allocated.SetResult(total);
            }

            return data(connection, input);
        };
        return (events, allocated);
    }

    private static async Task AssertNothingAsync(Site site, TaskCompletionSource<long> allocated)
    {
        await site.Server!.StopAsync().Within();

        // Nothing per callback. What may come once, whenever it comes, is the event that a Lock makes when a thread first has to wait for it.
        Assert.InRange(await allocated.Task.Within(), 0, (Callbacks - WarmUp) / 8);
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
        using (await DescriptorShortage.BeginAsync())
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
