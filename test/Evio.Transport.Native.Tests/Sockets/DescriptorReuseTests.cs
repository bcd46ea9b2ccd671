using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

/// <summary>
/// The kernel gives a closed descriptor's number to the next socket at once. No byte, event or close that was meant for the one may reach the
/// other.
/// </summary>
public sealed class DescriptorReuseTests
{
    [Fact]
    public async Task In_a_storm_of_connections_every_client_sees_its_own_bytes_only()
    {
        const int Clients = 3;
        const int ConnectionsPerClient = 700;
        const int Seed = 1_771_561;
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {Seed}");
        await using var group = new TestGroup(loops: 2, LoadBalance.RoundRobin);
        using var toServe = new BlockingCollection<(StreamSocket Socket, byte[] Mark)>();
        await using var server = await Server.StartAsync(group, socket => new RecordingHandler(socket)
        {
            Ready = (handler, _) =>
            {
                // The client's mark arrives in one segment; it is all that the client ever sends.
                var mark = new byte[sizeof(ulong)];
                if (handler.Socket.Receive(mark).Count == mark.Length)
                {
                    toServe.Add((handler.Socket, mark), CancellationToken.None);
                }
            },
        });

        // Each socket is sent to by a thread that learns of the close only by being refused.
        var senders = Enumerable.Range(0, 2).Select(_ => Waiting.OnThread(() =>
        {
            foreach (var (socket, mark) in toServe.GetConsumingEnumerable())
            {
                for (var i = 0; i < 2_000; i++)
                {
                    var result = socket.Send(mark);
                    if (!result.IsSuccess && !result.WouldBlock)
                    {
                        break;
                    }
                }

                socket.Close();
            }
        })).ToArray();

        var closer = new ConcurrentQueue<RecordingHandler>();
        var marked = 0L;
        Waiting.InParallel(Clients, number =>
        {
            var random = new Random(Seed + number);
            var mark = new byte[sizeof(ulong)];
            var buffer = new byte[4096];
            for (var i = 0; i < ConnectionsPerClient; i++)
            {
                BinaryPrimitives.WriteInt64BigEndian(mark, ((long)(number + 1) << 40) + i);
                using var client = Server.Dial(server.EndPoint);
                client.Send(mark);
                closer.Enqueue(server.NextAccepted());

                var toReceive = random.Next(3) * 400;
                for (var received = 0; received < toReceive;)
                {
                    var count = client.Receive(buffer, SocketFlags.None, out var error);
                    if (count == 0 || error != SocketError.Success)
                    {
                        break;
                    }

                    for (var at = 0; at < count; at++)
                    {
                        Assert.True(buffer[at] == mark[(received + at) % mark.Length], $"Client {number} got a foreign byte in connection {i}.");
                    }

                    received += count;
                    Interlocked.Add(ref marked, count);
                }

                // Somebody's socket, from another thread than the one that sends: often one that is being sent to.
                if (random.Next(2) == 0 && closer.TryDequeue(out var handler))
                {
                    handler.Socket.Close();
                }

                client.LingerState = new LingerOption(true, random.Next(2) == 0 ? 0 : 1);
            }
        });

        toServe.CompleteAdding();
        await Task.WhenAll(senders).Within();
        TestContext.Current.TestOutputHelper?.WriteLine($"{marked} bytes checked");
        Assert.True(marked > 0);
        foreach (var handler in closer)
        {
            handler.Socket.Close();
        }

        Waiting.Until(() => group.ConnectionCount == 0);
    }

    [Fact]
    public async Task Threads_that_send_while_the_socket_is_closed_never_reach_the_next_one()
    {
        // Many more than there are processors, so that most of them stand still between two instructions when the socket is closed.
        const int Senders = 6;
        const int Rounds = 100;
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group);
        StreamSocket? socket = null;
        using var begin = new Barrier(Senders + 1);
        using var sending = new SemaphoreSlim(0);
        using var end = new Barrier(Senders + 1);
        var senders = Enumerable.Range(0, Senders).Select(_ => Waiting.OnThread(() =>
        {
            for (var round = 0; round < Rounds; round++)
            {
                begin.Join();
                var result = socket!.Send([66]);
                sending.Release();
                while (result.IsSuccess || result.WouldBlock)
                {
                    result = socket.Send([66]);
                }

                end.Join();
            }
        })).ToArray();

        for (var round = 0; round < Rounds; round++)
        {
            var (client, handler) = server.Open();
            socket = handler.Socket;
            begin.Join();
            for (var i = 0; i < Senders; i++)
            {
                sending.Await();
            }

            socket.Close();
            await handler.Closed;
            using var next = new SocketPairs();
            end.Join();

            next.AssertUntouched();
            client.Dispose();
        }

        await Task.WhenAll(senders).Within();
    }

    [Fact]
    public async Task A_wake_up_that_comes_late_never_reaches_a_reused_descriptor()
    {
        const int Producers = 4;
        const int Rounds = 100;
        for (var round = 0; round < Rounds; round++)
        {
            var group = new TestGroup();
            var loop = group.Loops[0];

            // A loop that wakes by itself as well: it may have made a call, and have ended, before the wake-up for that call is written.
            await group.RunAsync(() => Renew(loop));
            using var posting = new CountdownEvent(Producers);
            var producers = Waiting.OnThread(() => Waiting.InParallel(Producers, _ =>
            {
                posting.Signal();
                var ran = new StrongBox<bool>();
                while (loop.TryPost(static ran => Volatile.Write(ref ((StrongBox<bool>)ran!).Value, true), ran))
                {
                    while (!Volatile.Read(ref ran.Value))
                    {
                        Thread.Yield();
                    }

                    ran.Value = false;
                }
            }));
            Assert.True(posting.Wait(Waiting.Limit, CancellationToken.None));

            await group.DisposeAsync();
            using var next = new SocketPairs();
            await producers.Within();

            next.AssertUntouched();
        }

        static void Renew(object? loop) => ((EventLoop)loop!).Schedule(TimeSpan.Zero, Renew, loop);
    }

    /// <summary>Takes the lowest free descriptors, those closed last among them.</summary>
    private sealed unsafe class SocketPairs : IDisposable
    {
        private readonly List<int> _descriptors = [];

        internal SocketPairs()
        {
            var pair = stackalloc int[2];
            for (var i = 0; i < 8; i++)
            {
                Assert.Equal(0, TestLibc.socketpair(TestLibc.AF_UNIX, TestLibc.SOCK_STREAM | TestLibc.SOCK_NONBLOCK | TestLibc.SOCK_CLOEXEC, 0, pair));
                _descriptors.Add(pair[0]);
                _descriptors.Add(pair[1]);
            }
        }

        internal void AssertUntouched()
        {
            foreach (var descriptor in _descriptors)
            {
                byte foreign;
                var count = TestLibc.read(descriptor, &foreign, 1);
                Assert.True(count < 0, "A byte that was meant for a closed descriptor reached the next one with its number.");
            }
        }

        public void Dispose() => _descriptors.ForEach(static descriptor => _ = TestLibc.close(descriptor));
    }
}
