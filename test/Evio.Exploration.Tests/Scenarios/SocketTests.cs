using System.Net.Sockets;
using Evio.Transport.Native;

namespace Exploration.Scenarios;

/// <summary>
/// The closing of a socket: its descriptor is closed once, and no system call is made for it afterwards, which the replacements of the calls watch.
/// </summary>
public sealed class SocketTests
{
    [Fact]
    public void It_is_closed_while_others_send_and_receive() => Exploring.Run(
        static run =>
        {
            var world = new World(run, start: true);
            run.Add("sender", () => World.AssertDoneOrClosed(world.Socket.Send("x"u8)));
            run.Add("receiver", () => World.AssertDoneOrClosed(world.Socket.Receive(new byte[1])));
            run.Add("closer", world.Socket.Close);
            run.Explore();
            world.End(handled: 1);
        },
        atLeast: 1300,
        departures: 3);

    /// <summary>The Socket that is asked for meanwhile is disposed of with it, or is refused.</summary>
    [Fact]
    public void It_is_closed_while_its_view_is_made() => Exploring.Run(
        static run =>
        {
            var world = new World(run, start: true);
            var views = new List<Socket>();
            for (var i = 0; i < 2; i++)
            {
                run.Add("user", () =>
                {
                    try
                    {
                        views.Add(world.Socket.GetSocket());
                    }
                    catch (ObjectDisposedException)
                    {
                        // The closer was first.
                    }
                });
            }

            run.Add("closer", world.Socket.Close);
            run.Explore();
            Assert.All(views, static view => Assert.True(view.SafeHandle.IsClosed));
            world.End(handled: 1);
        },
        atLeast: 100,
        departures: 2);

    [Fact]
    public void It_is_closed_twice_and_reset() => Exploring.Run(
        static run =>
        {
            var world = new World(run, start: true);
            run.Add("first", world.Socket.Close);
            run.Add("second", world.Socket.Close);
            run.Add("resetter", world.Socket.Reset);
            run.Explore();
            world.End(handled: 1);
        },
        atLeast: 1000,
        departures: 3);

    [Fact]
    public void It_is_closed_while_its_loop_ends() => Exploring.Run(
        static run =>
        {
            var world = new World(run, start: true);
            run.Add("sender", () => World.AssertDoneOrClosed(world.Socket.Send("x"u8)));
            run.Add("closer", world.Socket.Close);
            run.Add("stopper", () => world.Group.DisposeAsync().AsTask());
            run.Explore();
            world.End(handled: 1);
        },
        atLeast: 380,
        departures: 2);

    [Fact]
    public void One_that_was_not_started_is_closed_while_its_loop_ends() => Exploring.Run(
        static run =>
        {
            var world = new World(run, start: false);
            run.Add("sender", () => World.AssertDoneOrClosed(world.Socket.Send("x"u8)));
            run.Add("closer", world.Socket.Close);
            run.Add("stopper", () => world.Group.DisposeAsync().AsTask());
            run.Explore();
            world.End(handled: 0);
        },
        atLeast: 350,
        departures: 2);

    [Fact]
    public void It_is_detached_while_others_send_and_close() => Exploring.Run(
        static run =>
        {
            var world = new World(run, start: true);
            var detached = false;
            world.Socket.Loop.TryPostInternal(static _ => { }, null);
            run.Add("sender", () => World.AssertDoneOrClosed(world.Socket.Send("x"u8)));
            run.Add("closer", world.Socket.Close);
            run.Add("detacher", () => world.Socket.Loop.TryPostInternal(
                _ =>
                {
                    try
                    {
                        var socket = world.Socket.Detach();
                        detached = true;

                        // The caller's from now on; a late sender still reaches the connection that he meant.
                        world.Detached = socket;
                    }
                    catch (ObjectDisposedException)
                    {
                        // The close came first.
                    }
                },
                null));
            run.Explore();
            world.End(handled: detached ? 0 : 1);
        },
        atLeast: 1400,
        departures: 3);

    [Fact]
    public void A_reset_is_told_from_an_end_whoever_takes_its_error() => Exploring.Run(
        static run =>
        {
            var world = new World(run, start: true, tcp: true);
            world.Reset();
            IoResult received = default;
            run.Add("sender", () => World.AssertDoneOrClosed(world.Socket.Send("x"u8)));
            run.Add("receiver", () => received = world.Socket.Receive(new byte[1]));
            run.Explore();
            Assert.Equal(SocketError.ConnectionReset, received.Error);
            world.Socket.Close();
            world.End(handled: 1);
        },
        atLeast: 20,
        departures: 3);

    [Fact]
    public void An_end_is_told_from_a_reset_while_the_own_output_ends() => Exploring.Run(
        static run =>
        {
            var world = new World(run, start: true, tcp: true);
            world.EndInput();
            IoResult received = default;
            run.Add("shutter", world.Socket.ShutdownSend);
            run.Add("receiver", () => received = world.Socket.Receive(new byte[1]));
            run.Explore();
            Assert.Equal((SocketError.Success, 0), (received.Error, received.Count));
            world.Socket.Close();
            world.End(handled: 1);
        },
        atLeast: 20,
        departures: 3);

    private sealed class World : IStreamHandler
    {
        private readonly Execution _run;
        private readonly Peer _peer;
        private readonly int _descriptor;
        private int _closed;

        internal World(Execution run, bool start, bool tcp = false)
        {
            _run = run;
            Group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1, OnUnhandledException = (_, exception) => run.Fail(exception.ToString()) });
            var loop = Group.Loops[0];
            _peer = tcp ? Peer.CreateTcp(out _descriptor) : Peer.Create(out _descriptor);
            loop.ConnectionAdded();
            Socket = new StreamSocket(loop, _descriptor, localEndPoint: null, new UnixDomainSocketEndPoint("\0"));
            if (start)
            {
                var started = false;
                loop.TryPostInternal(
                    _ =>
                    {
                        Socket.Start(this);
                        started = true;
                    },
                    null);
                Execution.WaitFor("the start", () => started);
            }
        }

        internal EventLoopGroup Group { get; }

        internal StreamSocket Socket { get; }

        internal Socket? Detached { get; set; }

        internal static void AssertDoneOrClosed(IoResult result) => Assert.True(
            result.IsSuccess || result.WouldBlock || result.Error is SocketError.OperationAborted or SocketError.Shutdown or SocketError.ConnectionReset,
            $"{result.Error}");

        internal void Reset() => _peer.Reset(_descriptor);

        internal void EndInput()
        {
            _peer.Shutdown();
            Peer.Arrive(_descriptor);
        }

        internal void End(int handled)
        {
            Execution.WaitFor("the loop's end", Group.DisposeAsync());
            Assert.Equal(handled, _closed);
            Assert.Equal(0, Socket.Loop.ConnectionCount);
            if (Detached is not null)
            {
                _run.Descriptors.Release(_descriptor);
                Detached.Dispose();
            }

            Assert.Empty(_run.Descriptors.StillOpen);
            Assert.False(Socket.Send("x"u8).IsSuccess);
            _peer.Dispose();
        }

        void IStreamHandler.OnReady(ReadyEvents events)
        {
        }

        void IStreamHandler.OnLoopStopping()
        {
        }

        void IStreamHandler.OnClosed() => _closed++;
    }
}
