using System.Net.Sockets;
using System.Text;
using Evio.Transport.Native;

namespace Exploration.Scenarios;

/// <summary>Callbacks that cost their thread the loop, while others want something of their connection.</summary>
public sealed class BlockedCallbackTests
{
    [Theory]
    [InlineData(nameof(Events.Opened), 400)]
    [InlineData(nameof(Events.Data), 400)]
    public void Others_wake_and_send_while_it_is_late(string late, int atLeast) => Exploring.Run(
        run =>
        {
            var world = new World(run, late);
            run.Add("waker", () => world.Wake(2));
            run.Add("sender", () => world.SendAsync("12"));
            run.Explore();
            Execution.WaitFor("the wakes", () => world.WakeCalls == world.Wakes);
            world.Peer.Receive(2);
            Assert.Equal("12", world.Sent);
            Assert.Equal("12", world.Peer.ReceivedText);
            world.End();
        },
        atLeast,
        departures: 2);

    /// <summary>Each wake's callback is late in turn, and what was sent meanwhile waits for all of them.</summary>
    [Fact]
    public void What_has_waited_for_one_waits_for_the_next() => Exploring.Run(
        static run =>
        {
            var world = new World(run, nameof(Events.Opened), nameof(Events.Data));
            run.Add("other", async () =>
            {
                world.Wake(2);
                await world.SendAsync("12");
            });
            run.Add("peer", () => world.Peer.Send("ab"));
            run.Explore();
            Execution.WaitFor("the wakes and the input", () => world.WakeCalls == 2 && world.Input == "ab");
            world.Peer.Receive(2);
            Assert.Equal("12", world.Peer.ReceivedText);
            world.End();
        },
        atLeast: 100,
        departures: 2);

    [Fact]
    public void It_throws_while_others_wake_and_send() => Exploring.Run(
        static run =>
        {
            var world = new World(run, nameof(Events.Opened), nameof(Events.Closed)) { Throws = true };
            run.Add("waker", () => world.Wake(1));
            run.Add("sender", () => world.SendAsync("12"));
            run.Explore();
            Execution.WaitFor("the last callback", () => world.Closed == 1);
            world.End();
        },
        atLeast: 100,
        departures: 2);

    [Theory]
    [InlineData(nameof(Events.Opened), nameof(Events.Data))]
    [InlineData(nameof(Events.Data), nameof(Events.Closed))]
    public void It_is_closed_while_it_is_late(params string[] late) => Exploring.Run(
        run =>
        {
            var world = new World(run, late);
            run.Add("waker", () => world.Wake(1));
            run.Add("closer", () => world.Connection.Close());
            run.Add("sender", () => world.SendAsync("12"));
            run.Explore();
            Execution.WaitFor("the last callback", () => world.Closed == 1);
            Assert.InRange(world.WakeCalls, 0, world.Wakes);
            world.Peer.Receive();
            Assert.Equal(world.Sent, world.Peer.ReceivedText);
            world.End();
        },
        atLeast: 100,
        departures: 2);

    /// <summary>The loop does not wait for a late callback; who closed the connection is told after it, on its thread.</summary>
    [Theory]
    [InlineData(nameof(Events.Opened))]
    [InlineData(nameof(Events.Data))]
    public void The_loop_ends_while_it_is_late(string late) => Exploring.Run(
        run =>
        {
            var world = new World(run, late) { WaitsForEnd = true };
            run.Add("waker", () => world.Wake(1));
            run.Add("sender", () => world.SendAsync("12"));
            run.Add("stopper", () => world.StopAsync());
            run.Explore();
            Execution.WaitFor("the last callback", () => world.Closed == 1);
            Assert.InRange(world.WakeCalls, 0, world.Wakes);
            world.End();
        },
        atLeast: 100,
        departures: 2);

    /// <summary>A connection whose callbacks wait until their loop has gone on without them.</summary>
    private sealed class World
    {
        private readonly Execution _run;
        private readonly EvioServer _server;
        private readonly HashSet<string> _late;
        private readonly StringBuilder _sent = new();
        private Connection? _connection;
        private int _inside;
        private bool _opened;
        private bool _stopped;
        private bool _ended;

        internal World(Execution run, params string[] late)
        {
            _run = run;
            _late = [.. late];
            var starting = EvioServer.StartAsync(new Events
            {
                Scheduling = LoopScheduling.Adaptive,
                Opened = (connection, ref _) =>
                {
                    _connection = connection;
                    return Call(nameof(Events.Opened), () => _opened = true);
                },
                Data = (_, input) =>
                {
                    Assert.True(_opened);
                    Assert.Equal(0, Closed);
                    var (wakes, text) = (input.IsEmpty ? 1 : 0, Encoding.ASCII.GetString(input));
                    return Call(nameof(Events.Data), () => (WakeCalls, Input) = (WakeCalls + wakes, Input + text));
                },
                Closed = (_, _) => Call(nameof(Events.Closed), () => Closed++),
            });
            Execution.WaitFor("the server", starting);
            _server = starting.GetAwaiter().GetResult();
            var loop = _server.Loops[0];
            Peer = Peer.Create(out var descriptor);
            loop.TryPostInternal(
                _ =>
                {
                    loop.ConnectionAdded();
                    var socket = new StreamSocket(loop, descriptor, localEndPoint: null, new UnixDomainSocketEndPoint("\0"));
                    _ = _server.LoopOf(loop).Open(socket, addressIndex: 0);
                },
                null);
            Execution.WaitFor("the connection", () => _connection is not null);
        }

        internal Peer Peer { get; }

        internal Connection Connection => _connection!;

        /// <summary>Whether Opened throws after it was late.</summary>
        internal bool Throws { get; init; }

        /// <summary>Whether late callbacks come back only when the loop has ended, if it does.</summary>
        internal bool WaitsForEnd { get; init; }

        internal int Closed { get; private set; }

        internal int Wakes { get; private set; }

        internal int WakeCalls { get; private set; }

        internal string Input { get; private set; } = "";

        /// <summary>What was reported as sent.</summary>
        internal string Sent => _sent.ToString();

        internal void Wake(int count)
        {
            for (var i = 0; i < count; i++)
            {
                Wakes += Connection.Wake() ? 1 : 0;
            }
        }

        internal async Task SendAsync(string text)
        {
            foreach (var character in text)
            {
                try
                {
                    await Connection.SendAsync(new[] { (byte)character });
                    _sent.Append(character);
                }
                catch (IOException)
                {
                    // The connection ended first.
                }
            }
        }

        internal async Task StopAsync()
        {
            _stopped = true;
            await _server.Group.DisposeAsync();
            _ended = true;
        }

        internal void End()
        {
            if (!_stopped)
            {
                Execution.WaitFor("the loop's end", StopAsync());
            }

            Execution.WaitFor("the last callback", () => Closed == 1);
            Assert.False(Connection.Wake());
            Assert.Empty(_run.Descriptors.StillOpen);
            Peer.Dispose();
        }

        private EvioAction Call(string name, Action? last = null)
        {
            Assert.Equal(1, ++_inside);
            if (_late.Contains(name))
            {
                // Refused by a loop that is ending, which keeps its thread.
                var wentOn = false;
                if (Connection.Loop.TryPost(_ => wentOn = true, null))
                {
                    Execution.WaitFor("the loop goes on without it", () => wentOn);
                    if (WaitsForEnd && _stopped)
                    {
                        Execution.WaitFor("the loop's end", () => _ended);
                    }
                }
            }

            last?.Invoke();
            Assert.Equal(0, --_inside);
            return Throws && name == nameof(Events.Opened) ? throw new InvalidOperationException("It throws.") : EvioAction.None;
        }
    }
}
