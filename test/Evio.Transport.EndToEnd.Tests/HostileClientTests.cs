using System.Collections.Concurrent;
using System.Net;
using System.Reflection;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Others are served while hostile clients do what they can, and nothing is left of them afterwards.</summary>
[Collection(nameof(DescriptorTests))]
public sealed class HostileClientTests
{
    private const int Loops = 2;

    [Theory]
    [EvioTransports(
        HostileClients.Kind.DripHeaders,
        HostileClients.Kind.NeverRead,
        HostileClients.Kind.Oversized,
        HostileClients.Kind.Garbage,
        HostileClients.Kind.TlsGarbage,
        HostileClients.Kind.Http2Garbage,
        HostileClients.Kind.Bursts,
        HostileClients.Kind.UrgentData,
        HostileClients.Kind.ZeroWindow,
        HostileClients.Kind.KeepAliveProbes,
        HostileClients.Kind.Storm)]
    public async Task Hostile_clients_harm_nobody_and_leave_nothing(TransportKind kind, HostileClients.Kind clients)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Descriptors and threads are counted in /proc.");
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        var connections = new ConcurrentQueue<WeakReference>();
        await using var host = await TransportHost.StartAsync(kind, HostileClients.AnswerAsync, new HostSettings
        {
            Transport = new TransportSettings { LoopCount = Loops },
            Services = services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools),
            Kestrel = options =>
            {
                // Only the clients end what they have begun.
                options.Limits.RequestHeadersTimeout = options.Limits.KeepAliveTimeout = TimeSpan.FromMinutes(10);
                options.Limits.MinRequestBodyDataRate = options.Limits.MinResponseDataRate = null;
                options.ConfigureEndpointDefaults(listen => listen.Use(next => connection =>
                {
                    connections.Enqueue(new WeakReference(connection));
                    return next(connection);
                }));
                options.Listen(IPAddress.Loopback, 0, static listen => listen.UseHttps(TestCertificate.Instance));
                options.Listen(IPAddress.Loopback, 0, static listen => listen.Protocols = HttpProtocols.Http2);
            },
        });
        var loops = host.Services.GetRequiredService<EvioTransportFactory>().Loops;
        var endPoints = host.Addresses.Select(static address => new IPEndPoint(IPAddress.Loopback, address.Port)).ToArray();
        using var steady = await host.ConnectAsync();
        await HostileClients.ExchangeAsync(steady, TestData.Bytes(30_000));
        using (var other = await host.ConnectAsync())
        {
            await HostileClients.ExchangeAsync(other, TestData.Bytes(30_000));
        }

        await Eventually.HoldsAsync(() => CountAlive(connections) == 1);
        var before = (Blocks: pools.Outstanding, Descriptors: (int)await Eventually.SettlesAsync(static () => DescriptorTests.Count()));

        var hostile = HostileClients.RunAsync(clients, host.EndPoint, endPoints[0], endPoints[1], TestData.NewSeed());
        for (var i = 0; i < 10 || !hostile.IsCompleted; i++)
        {
            await HostileClients.ExchangeAsync(steady, TestData.Bytes(1 + (i * 997 % 10_000), seed: i));
        }

        await hostile;
        await HostileClients.ExchangeAsync(steady, TestData.Bytes(100_000));

        // The steady client is what there is, as before: its descriptors, its connection, and no more blocks, objects, timers or threads than it had.
        await Eventually.HoldsAsync(() => loops.Sum(static loop => loop.ConnectionCount) == 1);
        await Eventually.HoldsAsync(() => DescriptorTests.Count() <= before.Descriptors, () => $"{before} at the start, now {DescriptorTests.Count()} descriptors");
        await Eventually.HoldsAsync(() => pools.Outstanding <= before.Blocks, () => $"{before} at the start, now {pools.Outstanding} blocks");
        Assert.Equal(0, pools.DoubleReturns);
        await Eventually.HoldsAsync(() => CountAlive(connections) == 1, () => $"{CountAlive(connections)} of {connections.Count} connections are left");
        await Eventually.HoldsAsync(() => loops.All(static loop => !HasTimers(loop)));
        if (kind != TransportKind.EvioAdaptive)
        {
            // With adaptive scheduling spare threads stay for a while.
            Assert.Equal(Loops, CountLoopThreads());
        }

        Assert.DoesNotContain(host.Logs.Entries, static entry => entry.EventId.Name is "LoopException" or "AcceptFailing");
        await host.DisposeAsync();
        await Eventually.HoldsAsync(static () => CountLoopThreads() == 0);
    }

    private static int CountAlive(ConcurrentQueue<WeakReference> references)
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        return references.Count(static reference => reference.IsAlive);
    }

    /// <summary>Whether a loop has anything to do at some time. Nobody else needs to know that, so it is looked up by name.</summary>
    private static bool HasTimers(EventLoop loop)
    {
        const BindingFlags Hidden = BindingFlags.Instance | BindingFlags.NonPublic;
        var timers = typeof(EventLoop).GetField("_timers", Hidden)!.GetValue(loop)!;
        return !(bool)timers.GetType().GetProperty("IsEmpty", Hidden)!.GetValue(timers)!;
    }

    private static int CountLoopThreads() => Directory.EnumerateDirectories("/proc/self/task").Count(static task =>
    {
        try
        {
            return File.ReadAllText($"{task}/comm").StartsWith("Evio loop", StringComparison.Ordinal);
        }
        catch (IOException)
        {
            // It ended meanwhile.
            return false;
        }
    });
}
