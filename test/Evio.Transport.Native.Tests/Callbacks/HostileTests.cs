using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Reflection;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>An echo server serves others while hostile clients do what they can, and nothing is left of them afterwards.</summary>
[Collection(nameof(AloneCollection))]
public sealed class HostileTests
{
    private const int Loops = 2;

    public enum Hostility
    {
        Bursts,
        NeverRead,
        UrgentData,
        Storm,
    }

    public static TheoryData<string, Hostility> Cases => [.. Site.TcpSchemes.SelectMany(static scheme =>
        Enum.GetValues<Hostility>().Select(hostility => ((string)scheme, hostility)))];

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task HostileClients_HarmNobodyAndLeaveNothing(string scheme, Hostility hostility)
    {
        await using var site = new Site(scheme);
        var connections = new ConcurrentQueue<WeakReference>();
        var opened = new Counter();
        var closed = new Counter();
        var server = await site.StartAsync(new Events
        {
            NumLoops = Loops,
            Opened = (connection, ref _) =>
            {
                connections.Enqueue(new WeakReference(connection));
                opened.Add();
                return EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
            Data = static (connection, input) =>
            {
                connection.Write(input);
                return EvioAction.None;
            },
        });
        var steady = await site.ConnectAsync();
        await ExchangeAsync(steady, 1000, seed: 0);
        using (var other = await Client.ConnectAsync(server.Addresses[0]))
        {
            await ExchangeAsync(other, 100_000, seed: 1);
        }

        Support.Waiting.Until(() => CountAlive(connections) == 1);
        var before = ProcessState.SocketsAndPollers();

        var hostile = Task.Run(() => RunAsync(hostility, server));
        for (var i = 0; i < 10 || !hostile.IsCompleted; i++)
        {
            await ExchangeAsync(steady, 1 + (i * 997 % 10_000), seed: i);
        }

        await hostile;
        await ExchangeAsync(steady, 100_000, seed: 2);

        // The steady client is what there is, as before.
        Support.Waiting.Until(() => closed.Value == opened.Value - 1);
        Support.Waiting.Until(() => server.Loops.Sum(static loop => loop.ConnectionCount) == 1);
        Support.Waiting.Until(() => ProcessState.OpenedSince(before).Count == 0);
        Support.Waiting.Until(() => CountAlive(connections) == 1);
        Support.Waiting.Until(() => server.Loops.All(static loop => TimersOf(loop).IsEmpty));
        if (TestScheduling.Value != LoopScheduling.Adaptive)
        {
            // With adaptive scheduling spare threads stay for a while.
            Assert.Equal(Loops, ProcessState.Threads("Evio loop"));
        }

        Assert.False(server.Completion.IsCompleted);
    }

    private static async Task RunAsync(Hostility hostility, EvioServer server)
    {
        switch (hostility)
        {
            case Hostility.Bursts:
                await BurstsAsync(server, bursts: 50, size: 200);
                break;
            case Hostility.NeverRead:
                await NeverReadAsync(server);
                break;
            case Hostility.UrgentData:
                await UrgentDataAsync(server);
                break;
            case Hostility.Storm:
                await Task.WhenAll(Enumerable.Range(0, 10).Select(number => Task.Run(() => StormAsync(server, number))));
                break;
        }
    }

    private static async Task BurstsAsync(EvioServer server, int bursts, int size)
    {
        for (var burst = 0; burst < bursts; burst++)
        {
            var clients = await Task.WhenAll(Enumerable.Range(0, size).Select(_ => Client.ConnectAsync(server.Addresses[0])));
            for (var i = 0; i < size; i++)
            {
                using var client = clients[i];
                if (i % 4 > 1)
                {
                    await client.WriteAsync(Payload.Random(i, 500));
                }

                if (i % 2 == 0)
                {
                    client.Reset();
                }
            }
        }
    }

    /// <summary>Clients that send as much as they are let, and take nothing.</summary>
    private static async Task NeverReadAsync(EvioServer server)
    {
        const int Count = 20;
        const int TooMuch = 50_000_000;
        var clients = await Task.WhenAll(Enumerable.Range(0, Count).Select(_ => Client.ConnectAsync(server.Addresses[0])));
        var data = new byte[TooMuch];
        var sends = clients.Select(async client =>
        {
            var exception = await Assert.ThrowsAnyAsync<SocketException>(async () => await client.Socket.SendAsync(data.AsMemory(), SocketFlags.None));
            Assert.True(exception.SocketErrorCode is SocketError.OperationAborted or SocketError.ConnectionReset or SocketError.Shutdown, exception.Message);
        }).ToArray();
        foreach (var client in clients)
        {
            // Its own window is full, and so the server has stopped to read.
            var last = -1;
            Support.Waiting.Until(() =>
            {
                var now = client.Socket.Available;
                (last, var same) = (now, now > 0 && now == last);
                return same;
            });
        }

        Assert.All(sends, static send => Assert.False(send.IsCompleted));
        for (var i = 0; i < Count; i++)
        {
            using var client = clients[i];
            if (i % 2 == 0)
            {
                client.Reset();
            }
        }

        await Task.WhenAll(sends).Within();
    }

    private static async Task UrgentDataAsync(EvioServer server)
    {
        byte[] urgent = [0xFF];

        // One at a time it is no part of the stream (tcp(7)).
        using (var client = await Client.ConnectAsync(server.Addresses[0]))
        {
            for (var i = 0; i < 100; i++)
            {
                client.Socket.Send(urgent, SocketFlags.OutOfBand);
                await ExchangeAsync(client, 1 + (i * 333), seed: i);
            }
        }

        // Many at a time the stream has all but the last.
        using (var client = await Client.ConnectAsync(server.Addresses[0]))
        {
            for (var i = 0; i < 100; i++)
            {
                client.Socket.Send(urgent, SocketFlags.OutOfBand);
            }

            await client.WriteAsync(Payload.Random(0, 1000));
            client.Socket.Shutdown(SocketShutdown.Send);
            Assert.InRange((await client.ReadToEndAsync()).Length, 1000, 1099);
        }
    }

    /// <summary>Connections that take each other's descriptors, with bytes on their way that must reach nobody.</summary>
    private static async Task StormAsync(EvioServer server, int number)
    {
        var random = new Random(number);
        for (var i = 0; i < 100; i++)
        {
            using var client = await Client.ConnectAsync(server.Addresses[0]);
            await ExchangeAsync(client, random.Next(1, 20_000), seed: (1000 * number) + i);
            if (random.Next(2) == 0)
            {
                await client.WriteAsync(Payload.Random(0, random.Next(1, 5000)));
                client.Reset();
            }
        }
    }

    private static async Task ExchangeAsync(Client client, int size, int seed)
    {
        var sent = Payload.Random(seed, size);
        var received = await client.EchoAsync(sent);
        Assert.True(sent.AsSpan().SequenceEqual(received), "Other bytes came back.");
    }

    private static int CountAlive(ConcurrentQueue<WeakReference> references)
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        return references.Count(static reference => reference.IsAlive);
    }

    /// <summary>What a loop has to do at some time. Nobody else needs to know that, so it is looked up by name.</summary>
    private static TimerQueue TimersOf(EventLoop loop) =>
        (TimerQueue)typeof(EventLoop).GetField("_timers", BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(loop)!;
}
