using System.Net.Sockets;
using Evio.Transport;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging.Abstractions;

namespace Exploration.Scenarios;

/// <summary>From the kernel's backlog to the caller of AcceptAsync: each connection is handed over once or closed, and who waits is told of the end.</summary>
public sealed class AcceptTests
{
    /// <summary>With two loops half of the connections go from the loop that accepts to the other one.</summary>
    [Theory]
    [InlineData(1, 2)]
    [InlineData(2, 1)]
    public void Connections_arrive_while_the_listener_is_unbound(int loops, int departures) => Exploring.Run(
        run =>
        {
            var world = new World(run, loops);
            run.Add("server", world.AcceptAllAsync);
            run.Add("client", () =>
            {
                world.Connect();
                world.Connect();
            });
            var before = 0;
            run.Add("stopper", () =>
            {
                before = world.Connected;
                return world.Listener.UnbindAsync().AsTask();
            });
            run.Explore();

            // Whoever was told that he is connected, unless it was after the last look into the backlog.
            Assert.InRange(world.Accepted.Count, before, world.Connected);
            world.End();
        },
        atLeast: 30,
        departures);

    [Fact]
    public void Connections_arrive_while_the_listener_is_disposed_of() => Exploring.Run(
        static run =>
        {
            var world = new World(run);
            run.Add("server", async () =>
            {
                if (await Execution.Later(world.Listener.AcceptAsync()) is { } connection)
                {
                    world.Accepted.Add(connection);
                    await connection.DisposeAsync();
                }
            });
            run.Add("client", () =>
            {
                world.Connect();
                world.Connect();
            });
            run.Add("stopper", () => world.Listener.DisposeAsync().AsTask());
            run.Explore();
            world.End();
        },
        atLeast: 100,
        departures: 1);

    [Fact]
    public void An_accept_is_cancelled_while_a_connection_arrives() => Exploring.Run(
        static run =>
        {
            var world = new World(run);
            using var cancellation = new CancellationTokenSource();
            run.Add("server", async () =>
            {
                try
                {
                    world.Accepted.Add((await Execution.Later(world.Listener.AcceptAsync(cancellation.Token)))!);
                }
                catch (OperationCanceledException)
                {
                    Assert.True(cancellation.IsCancellationRequested);
                    world.Accepted.Add((await Execution.Later(world.Listener.AcceptAsync()))!);
                }
            });
            run.Add("client", world.Connect);
            run.Add("canceller", () =>
            {
                Execution.Step("cancels");
                cancellation.Cancel();
            });
            run.Explore();
            Assert.NotNull(Assert.Single(world.Accepted));
            world.End();
        },
        atLeast: 1800,
        departures: 3);

    /// <summary>The one before is cancelled, or has its connection, and that is on its way to a caller who is not there any more.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void An_accept_follows_one_that_is_not_awaited(bool isCancelled) => Exploring.Run(
        run =>
        {
            var world = new World(run, scheduling: LoopScheduling.ThreadPool);
            using var cancellation = new CancellationTokenSource();
            ValueTask<ConnectionContext?> first = default;
            run.Add("server", async () =>
            {
                first = world.Listener.AcceptAsync(cancellation.Token);
                Execution.WaitFor("the cancellation, or a connection", () => isCancelled ? cancellation.IsCancellationRequested : world.Connected > 0);
                for (var i = 0; i < 3; i++)
                {
                    try
                    {
                        world.Accepted.Add((await Execution.Later(world.Listener.AcceptAsync()))!);
                        return;
                    }
                    catch (InvalidOperationException)
                    {
                        // The first one waits still.
                        await PipeWorld.ToPool();
                    }
                }
            });
            run.Add("client", () =>
            {
                world.Connect();
                world.Connect();
            });
            if (isCancelled)
            {
                run.Add("canceller", () =>
                {
                    Execution.Step("cancels");
                    cancellation.Cancel();
                });
            }

            run.Explore();
            if (first.IsCompletedSuccessfully)
            {
                world.Accepted.Add(first.Result!);
            }

            Assert.All(world.Accepted, Assert.NotNull);
            Assert.Distinct(world.Accepted);
            world.End();
        },
        atLeast: 40,
        departures: 1);

    /// <summary>The queue fills, the loops stop accepting, and go on when the server does.</summary>
    [Fact]
    public void A_full_queue_pauses_the_loops() => Exploring.Run(
        static run =>
        {
            var world = new World(run, backlog: 1);
            run.Add("client", () =>
            {
                world.Connect();
                world.Connect();
                world.Connect();
            });
            run.Add("server", async () =>
            {
                // All that came; the client is done before the last of these is asked for.
                for (var i = 0; i == 0 || i < world.Connected; i++)
                {
                    world.Accepted.Add((await Execution.Later(world.Listener.AcceptAsync()))!);
                }
            });
            run.Explore();
            Assert.InRange(world.Accepted.Count, 1, 3);
            Assert.All(world.Accepted, Assert.NotNull);
            world.End();
        },
        atLeast: 250,
        departures: 2);

    [Fact]
    public void The_loops_end_while_connections_are_handed_over() => Exploring.Run(
        static run =>
        {
            var world = new World(run, loops: 2);
            run.Add("client", () =>
            {
                world.Connect();
                world.Connect();
            });
            run.Add("stopper", world.StopLoopsAsync);
            run.Explore();
            world.End();
        },
        atLeast: 180,
        departures: 1);

    private sealed class World
    {
        private static readonly UnixDomainSocketEndPoint Address = new($"\0evio-exploration-{Environment.ProcessId}");

        private readonly Execution _run;
        private readonly TransportLoops _loops;
        private readonly CheckedPool _pool = new(4096);
        private readonly List<Peer> _clients = [];
        private bool _stopped;

        internal World(Execution run, int loops = 1, int backlog = 16, LoopScheduling scheduling = LoopScheduling.Inline)
        {
            _run = run;
            var options = new EvioTransportOptions
            {
                LoopCount = loops,
                LoadBalance = LoadBalance.RoundRobin,
                Scheduling = scheduling,
                Backlog = backlog,
            };
            _loops = new TransportLoops(options, NullLogger.Instance, _pool, meterFactory: null);
            var binding = EvioConnectionListener.BindAsync(_loops, Address);
            Execution.WaitFor("the listener", binding);
            Listener = binding.GetAwaiter().GetResult();
        }

        internal EvioConnectionListener Listener { get; }

        internal int Connected => _clients.Count;

        internal List<ConnectionContext> Accepted { get; } = [];

        internal void Connect()
        {
            if (Peer.TryConnect(Address) is { } client)
            {
                _clients.Add(client);
            }
        }

        internal async Task AcceptAllAsync()
        {
            while (await Execution.Later(Listener.AcceptAsync()) is { } connection)
            {
                Accepted.Add(connection);
            }
        }

        internal Task StopLoopsAsync()
        {
            _stopped = true;
            return _loops.DisposeAsync().AsTask();
        }

        internal void End()
        {
            Execution.WaitFor("the listener's end", Task.WhenAll(Accepted.Select(static connection => connection.DisposeAsync().AsTask())));
            Execution.WaitFor("the listener's end", Listener.DisposeAsync());
            if (!_stopped)
            {
                Execution.WaitFor("the loops' end", StopLoopsAsync());
            }

            Assert.Equal(0, _pool.Outstanding);
            Assert.All(_loops.Group.Loops, static loop => Assert.Equal(0, loop.ConnectionCount));
            Assert.Empty(_run.Descriptors.StillOpen);
            _clients.ForEach(static client => client.Dispose());
        }
    }
}
