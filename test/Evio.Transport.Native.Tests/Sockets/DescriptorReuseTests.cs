using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Net.Sockets;
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
}
