using System.Net.Sockets;
using System.Text;
using Evio.Transport.Native;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Sockets;

namespace Exploration.Scenarios;

/// <summary>Datagrams on a loop that is taken over from callbacks that do not come back.</summary>
public sealed class DatagramTests
{
    /// <summary>A datagram's callback closes a connection whose last callback blocks until all replies have come.</summary>
    [Fact]
    public void A_datagram_closes_a_connection_whose_last_callback_blocks() => Exploring.Run(
        static run =>
        {
            var world = new World(run) { OnDatagram = static world => world.Connection.Close() };
            world.OnClosed = world.Block;
            run.Add("peer", world.Ask);
            run.Explore();
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 150,
        departures: 3);

    /// <summary>A datagram's callback has a call run that blocks until all replies have come.</summary>
    [Fact]
    public void A_datagram_has_a_call_run_that_blocks() => Exploring.Run(
        static run =>
        {
            var calls = 0;
            var world = new World(run);
            world.OnDatagram = world => world.Connection.Loop.Invoke(new Call(() =>
            {
                world.Block();
                calls++;
            }));
            run.Add("peer", world.Ask);
            run.Explore();
            Assert.Equal(1, calls);
            world.End();
        },
        atLeast: 150,
        departures: 3);

    /// <summary>A stream's callback blocks until all replies have come, while the datagrams come.</summary>
    [Fact]
    public void Datagrams_come_while_a_callback_is_taken_over() => Exploring.Run(
        static run =>
        {
            var world = new World(run);
            world.OnData = world.Block;
            run.Add("client", () => world.Client.Send("x"));
            run.Add("peer", world.Ask);
            run.Explore();
            Assert.Equal(1, world.DataCalls);
            world.End();
        },
        atLeast: 150);

    private sealed class World
    {
        private const int Datagrams = 2;

        private readonly Execution _run;
        private readonly EvioServer _server;
        private readonly StreamConnection? _connection;
        private readonly DatagramSocket _socket;
        private bool _delivering;
        private int _delivered;
        private bool _answered;

        internal World(Execution run)
        {
            _run = run;
            var starting = EvioServer.StartAsync(new Events
            {
                Scheduling = LoopScheduling.Adaptive,
                PreWrite = connection =>
                {
                    if (connection is DatagramConnection)
                    {
                        Execution.Step("is about to send");
                    }
                },
                Data = (connection, input) => connection is DatagramConnection ? Deliver(connection, input) : Receive(),
                Closed = (_, _) =>
                {
                    OnClosed?.Invoke();
                    Closed++;
                    return EvioAction.None;
                },
            });
            Execution.WaitFor("the server", starting);
            _server = starting.GetAwaiter().GetResult();
            var loop = _server.Loops[0];
            Client = Peer.Create(out var descriptor);
            Peer = Peer.Create(out var datagrams, ofDatagrams: true);
            _socket = new DatagramSocket(loop, datagrams, new UnixDomainSocketEndPoint("\0"));
            StreamConnection? connection = null;
            loop.TryPostInternal(
                _ =>
                {
                    _socket.Start(new DatagramConnection(_server, _socket, addressIndex: 1));
                    loop.ConnectionAdded();
                    var socket = new StreamSocket(loop, descriptor, localEndPoint: null, new UnixDomainSocketEndPoint("\0"));
                    connection = _server.LoopOf(loop).Open(socket, addressIndex: 0);
                },
                null);
            Execution.WaitFor("the connection", () => connection is not null);
            _connection = connection;
        }

        /// <summary>What the callback of the first datagram does.</summary>
        internal Action<World>? OnDatagram { get; set; }

        internal Action? OnData { get; set; }

        internal Action? OnClosed { get; set; }

        internal Peer Client { get; }

        internal Peer Peer { get; }

        internal Connection Connection => _connection!;

        internal int Closed { get; private set; }

        internal int DataCalls { get; private set; }

        /// <summary>Does not come back before all replies have come.</summary>
        internal void Block() => Execution.WaitFor("the replies", () => _answered);

        /// <summary>Sends the datagrams, and receives the reply to each.</summary>
        internal void Ask()
        {
            for (var i = 0; i < Datagrams; i++)
            {
                Peer.Send(((char)('a' + i)).ToString());
            }

            for (var i = 0; i < Datagrams; i++)
            {
                Peer.Receive(2 * (i + 1));
            }

            Assert.Equal("aAbB", Peer.ReceivedText);
            _answered = true;
        }

        internal void End()
        {
            _answered = true;
            Assert.Equal(Datagrams, _delivered);
            OnClosed = null;
            Execution.WaitFor("the loop's end", _server.Group.DisposeAsync().AsTask());
            Assert.Equal(1, Closed);
            Assert.Empty(_run.Descriptors.StillOpen);
            Client.Dispose();
            Peer.Dispose();
        }

        private EvioAction Deliver(Connection connection, ReadOnlySpan<byte> input)
        {
            Assert.False(_delivering);
            _delivering = true;
            connection.Write(input);
            if (_delivered++ == 0)
            {
                OnDatagram?.Invoke(this);
            }

            Execution.Step("goes on with the datagram");
            Assert.True(connection.Loop.IsCurrent);
            connection.Write(Encoding.ASCII.GetBytes(Encoding.ASCII.GetString(input).ToUpperInvariant()));
            _delivering = false;
            return EvioAction.None;
        }

        private EvioAction Receive()
        {
            OnData?.Invoke();
            DataCalls++;
            return EvioAction.None;
        }
    }

    private sealed class Call(Action run) : ILoopCall
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
