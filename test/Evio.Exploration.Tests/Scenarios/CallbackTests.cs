using System.Net.Sockets;
using Evio.Transport.Native;
using Evio.Transport.Native.Callbacks;

namespace Exploration.Scenarios;

/// <summary>Calls from other threads to a connection of the callback API.</summary>
public sealed class CallbackTests
{
    [Fact]
    public void Every_wake_is_called_once() => Exploring.Run(
        static run =>
        {
            var world = new World(run);
            run.Add("first", () => world.Wake(2));
            run.Add("second", () => world.Wake(1));
            run.Explore();
            Assert.Equal(3, world.Wakes);
            Assert.Equal(3, world.WakeCalls);
            world.End();
        },
        atLeast: 500,
        departures: 3);

    [Fact]
    public void It_is_closed_while_others_send_and_wake() => Exploring.Run(
        static run =>
        {
            var world = new World(run);
            run.Add("sender", world.SendAsync);
            run.Add("waker", () => world.Wake(1));
            run.Add("closer", world.Connection.Close);
            run.Explore();
            Assert.Equal(1, world.Closed);
            Assert.InRange(world.WakeCalls, 0, world.Wakes);
            world.AssertSent();
            world.End();
        },
        atLeast: 800);

    [Fact]
    public void Its_peer_leaves_while_others_send_and_wake() => Exploring.Run(
        static run =>
        {
            var world = new World(run);
            run.Add("sender", world.SendAsync);
            run.Add("waker", () => world.Wake(1));
            run.Add("peer", () =>
            {
                world.Peer.Send("ab");
                world.Peer.Shutdown();
            });
            run.Explore();
            Assert.Equal("ab", world.Input);
            Assert.Equal(1, world.Closed);
            Assert.InRange(world.WakeCalls, 0, world.Wakes);
            world.AssertSent();
            world.End();
        },
        atLeast: 900);

    [Fact]
    public void The_loop_ends_while_others_send_and_wake() => Exploring.Run(
        static run =>
        {
            var world = new World(run);
            run.Add("sender", world.SendAsync);
            run.Add("waker", () => world.Wake(1));
            run.Add("stopper", () => world.StopAsync());
            run.Explore();
            Assert.Equal(1, world.Closed);
            Assert.InRange(world.WakeCalls, 0, world.Wakes);
            world.AssertSent();
            world.End();
        },
        atLeast: 1100);

    private sealed class World
    {
        private readonly Execution _run;
        private readonly EvioServer _server;
        private readonly StreamConnection? _connection;
        private bool _sent;
        private bool _stopped;

        internal World(Execution run)
        {
            _run = run;
            var starting = EvioServer.StartAsync(new Events
            {
                Data = (_, input) =>
                {
                    Assert.Equal(0, Closed);
                    WakeCalls += input.IsEmpty ? 1 : 0;
                    Input += System.Text.Encoding.ASCII.GetString(input);
                    return EvioAction.None;
                },
                Closed = (_, _) =>
                {
                    Closed++;
                    return EvioAction.None;
                },
            });
            Execution.WaitFor("the server", starting);
            _server = starting.GetAwaiter().GetResult();
            var loop = _server.Loops[0];
            Peer = Peer.Create(out var descriptor);
            StreamConnection? connection = null;
            loop.TryPostInternal(
                _ =>
                {
                    loop.ConnectionAdded();
                    var socket = new StreamSocket(loop, descriptor, localEndPoint: null, new UnixDomainSocketEndPoint("\0"));
                    connection = _server.LoopOf(loop).Open(socket, addressIndex: 0);
                },
                null);
            Execution.WaitFor("the connection", () => connection is not null);
            _connection = connection;
        }

        internal Peer Peer { get; }

        internal Connection Connection => _connection!;

        internal int Closed { get; private set; }

        internal int Wakes { get; private set; }

        internal int WakeCalls { get; private set; }

        internal string Input { get; private set; } = "";

        internal void Wake(int count)
        {
            for (var i = 0; i < count; i++)
            {
                var called = Connection.Wake();
                Wakes += called ? 1 : 0;
            }
        }

        internal async Task SendAsync()
        {
            try
            {
                await Connection.SendAsync("xy"u8.ToArray());
                _sent = true;
            }
            catch (IOException)
            {
                // The connection ended first.
            }
        }

        /// <summary>What was reported as sent has arrived, and nothing else.</summary>
        internal void AssertSent()
        {
            Peer.Receive();
            Assert.Equal(_sent ? "xy" : "", Peer.ReceivedText);
        }

        internal Task StopAsync()
        {
            _stopped = true;
            return _server.Group.DisposeAsync().AsTask();
        }

        internal void End()
        {
            if (!_stopped)
            {
                Execution.WaitFor("the loop's end", StopAsync());
            }

            Assert.Equal(1, Closed);
            Assert.False(Connection.Wake());
            Assert.Empty(_run.Descriptors.StillOpen);
            Peer.Dispose();
        }
    }
}
