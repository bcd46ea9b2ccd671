using System.Buffers.Binary;
using System.Collections.Concurrent;
using Evio.Transport.Native.Tests.Callbacks;

namespace Evio.Transport.Native.Tests.Udp;

/// <summary>User code between the steps of the reactor, which reaches what could cost the loop: the loop stays, and every reply and stream has its own bytes.</summary>
public sealed class DatagramTakeOverTests
{
    private const int Victims = 60;
    private const int Peers = 8;
    private const int Window = 8;
    private const int DatagramsOfAPeer = 250;

    /// <summary>Where the user code is.</summary>
    public enum Place
    {
        Data,
        PreWrite,
        DatagramFailed,
    }

    /// <summary>What it does there: closes a connection whose last callback blocks, or runs a call that blocks.</summary>
    public enum Deed
    {
        Close,
        Invoke,
    }

    public static MatrixTheoryData<string, Place, Deed> Cases => new(
        ["", "-net"], [Place.Data, Place.PreWrite, Place.DatagramFailed], [Deed.Close, Deed.Invoke]);

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task EveryReplyHasItsBytesWhateverUserCodeReaches(string suffix, Place place, Deed deed)
    {
        var seed = Payload.NewSeed();
        var site = new VictimSite(deed);
        await using var server = await EvioServer.StartAsync(
            new Events
            {
                Scheduling = LoopScheduling.Adaptive,
                MaxBlockedThreads = 2 * Victims,
                Opened = site.Opened,
                Closed = site.Closed,
                Data = (connection, input) =>
                {
                    if (connection.AddressIndex == 0)
                    {
                        return EvioAction.None;
                    }

                    var isDeed = IsDeed(input);
                    connection.Context = isDeed;
                    connection.Write(input[..(input.Length / 2)]);
                    if (isDeed && place == Place.DatagramFailed)
                    {
                        throw new InvalidTimeZoneException();
                    }

                    if (isDeed && place == Place.Data)
                    {
                        site.Do(connection.Loop);
                    }

                    connection.Write(input[(input.Length / 2)..]);
                    return EvioAction.None;
                },
                PreWrite = connection =>
                {
                    if (connection.AddressIndex == 1)
                    {
                        if (connection.Context is true && place == Place.PreWrite)
                        {
                            site.Do(connection.Loop);
                        }

                        connection.Write("."u8);
                    }
                },
                DatagramFailed = (connection, exception) =>
                {
                    if (exception is InvalidTimeZoneException)
                    {
                        site.Do(connection.Loop);
                    }
                    else
                    {
                        site.Failures.Enqueue(exception);
                    }
                },
            },
            $"tcp{suffix}://127.0.0.1:0",
            $"udp{suffix}://127.0.0.1:0");
        await site.ConnectAsync(server);

        await Task.WhenAll(Enumerable.Range(0, Peers).Select(
            peer => ExchangeAsync(server, HashCode.Combine(seed, peer), repliesToDeeds: place != Place.DatagramFailed)));

        await site.EndAsync(server);
    }

    [Theory]
    [InlineData("")]
    [InlineData("-net")]
    public async Task StreamsKeepTheirBytesWhenPreWriteClosesOtherConnections(string suffix)
    {
        const int Streams = 16;
        const int Length = 64 * 1024;
        var seed = Payload.NewSeed();
        var site = new VictimSite(Deed.Close);
        var sends = 0;
        await using var server = await EvioServer.StartAsync(
            new Events
            {
                Scheduling = LoopScheduling.Adaptive,
                MaxBlockedThreads = 2 * Victims,
                Opened = site.Opened,
                Closed = site.Closed,
                Data = static (connection, input) =>
                {
                    connection.Write(input);
                    return EvioAction.None;
                },
                PreWrite = connection =>
                {
                    if (connection.AddressIndex == 1 && ++sends % 4 == 0)
                    {
                        site.Do(connection.Loop);
                    }
                },
            },
            $"tcp{suffix}://127.0.0.1:0",
            $"tcp{suffix}://127.0.0.1:0");
        await site.ConnectAsync(server);

        await Task.WhenAll(Enumerable.Range(0, Streams).Select(async stream =>
        {
            using var client = await Client.ConnectAsync(server.Addresses[1]);
            var sent = Payload.Random(HashCode.Combine(seed, stream), Length);
            for (var at = 0; at < sent.Length; at += 4096)
            {
                Payload.AssertSame(sent.AsMemory(at, 4096), await client.EchoAsync(sent[at..(at + 4096)]));
            }
        }));

        await site.EndAsync(server);
    }

    /// <summary>One datagram in eight is followed by the deed.</summary>
    private static bool IsDeed(ReadOnlySpan<byte> datagram) => datagram[4] % 8 == 0;

    private static async Task ExchangeAsync(EvioServer server, int seed, bool repliesToDeeds)
    {
        using var peer = new UdpPeer(server.Addresses[1]);
        var random = new Random(seed);
        for (var sent = 0; sent < DatagramsOfAPeer;)
        {
            var expected = new Dictionary<int, byte[]>();
            for (var i = 0; i < Window && sent < DatagramsOfAPeer; i++)
            {
                var datagram = new byte[random.Next(5, 200)];
                random.NextBytes(datagram);
                BinaryPrimitives.WriteInt32LittleEndian(datagram, sent++);
                if (repliesToDeeds || !IsDeed(datagram))
                {
                    expected.Add(sent - 1, [.. datagram, (byte)'.']);
                }

                peer.Send(datagram);
            }

            while (expected.Count > 0)
            {
                var reply = await peer.ReceiveAsync();
                Assert.True(expected.Remove(BinaryPrimitives.ReadInt32LittleEndian(reply), out var bytes), "A reply came twice, or is somebody else's.");
                Payload.AssertSame(bytes, reply);
            }
        }
    }

    /// <summary>Connections to be closed by the deed, and the calls to be run by it.</summary>
    private sealed class VictimSite(Deed deed)
    {
        private readonly ConcurrentQueue<Connection> _victims = [];
        private readonly Counter _opened = new();
        private readonly Counter _ended = new();
        private readonly List<Client> _clients = [];
        private int _begun;

        internal ConcurrentQueue<Exception> Failures { get; } = [];

        internal EvioAction Opened(Connection connection, ref ConnectionOptions options)
        {
            if (connection.AddressIndex == 0)
            {
                connection.Context = this;
                _victims.Enqueue(connection);
                _opened.Add();
            }

            return EvioAction.None;
        }

        internal EvioAction Closed(Connection connection, Exception? error)
        {
            if (connection.Context == this)
            {
                Block(connection.Loop);
            }

            return EvioAction.None;
        }

        internal async Task ConnectAsync(EvioServer server)
        {
            for (var i = 0; i < Victims; i++)
            {
                _clients.Add(await Client.ConnectAsync(server.Addresses[0]));
            }

            await _opened.ReachesAsync(Victims);
        }

        /// <summary>Reaches what may block, and finds the loop to be the caller's still.</summary>
        internal void Do(EventLoop loop)
        {
            if (!_victims.TryDequeue(out var victim))
            {
                return;
            }

            _begun++;
            if (deed == Deed.Close)
            {
                victim.Close();
            }
            else
            {
                loop.Invoke(new BlockingCall(() => Block(loop)));
            }

            if (!loop.IsCurrent)
            {
                Failures.Enqueue(new InvalidOperationException("The loop was lost."));
            }
        }

        /// <summary>All that was begun has come to its end, and nothing has failed.</summary>
        internal async Task EndAsync(EvioServer server)
        {
            Assert.Equal(Victims, _begun);
            await _ended.ReachesAsync(Victims);
            _victims.Clear();
            Assert.Empty(Failures);
            _clients.ForEach(static client => client.Dispose());
            await server.StopAsync(TimeSpan.Zero).Within();
        }

        /// <summary>Keeps the thread until it has lost the loop, if it has one to lose.</summary>
        private void Block(EventLoop loop)
        {
            Support.Waiting.Until(() => !loop.IsCurrent);
            _ended.Add();
        }
    }

    private sealed class BlockingCall(Action run) : ILoopCall
    {
        public LoopCallCost Cost { get; set; }

        public IThreadPoolWorkItem? Run()
        {
            run();
            return null;
        }

        public void Execute() => run();
    }
}
