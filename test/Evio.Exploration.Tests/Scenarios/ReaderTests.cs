using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;

namespace Exploration.Scenarios;

/// <summary>The input of a connection: every byte comes once and in order, every read ends once, and no wake-up is lost.</summary>
public sealed class ReaderTests
{
    /// <summary>A user who goes on on the pool after each input has the next ones delivered there.</summary>
    [Fact]
    public void Input_is_delivered_where_its_user_goes_on() => Exploring.Run(
        static run =>
        {
            const string Input = "abcde";
            var world = new PipeWorld(run, static options => options.Scheduling = LoopScheduling.Adaptive) { Yields = true };
            run.Add("user", world.ReadToEndAsync);
            run.Add("peer", () =>
            {
                foreach (var what in Input)
                {
                    var read = world.Text.Length;
                    world.Peer.Send(what.ToString());
                    Execution.WaitFor("its reader", () => world.Text.Length > read);
                }

                world.Peer.Shutdown();
            });
            run.Explore();
            Assert.Equal(Input, world.Text.ToString());
            world.End();
        },
        atLeast: 100,
        departures: 1);

    [Theory]
    [InlineData(false, 3)]
    [InlineData(true, 2)]
    public void Input_comes_in_pieces_and_ends(bool yields, int departures) => Exploring.Run(
        run =>
        {
            var world = new PipeWorld(run) { Yields = yields };
            run.Add("user", world.ReadToEndAsync);
            run.Add("peer", () =>
            {
                world.Peer.Send("ab");
                world.Peer.Send("cde");
                world.Peer.Shutdown();
            });
            run.Explore();
            Assert.Equal("abcde", world.Text.ToString());
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 300,
        departures);

    /// <summary>The user is on another thread, and the loop may know of the input before he reads, or hear of it afterwards, or be told to end meanwhile.</summary>
    [Theory]
    [InlineData(false, 150)]
    [InlineData(true, 1000)]
    public void The_first_read_is_left_to_the_loop(bool stops, int atLeast) => Exploring.Run(
        run =>
        {
            var world = new PipeWorld(run) { FirstReadOnLoop = true };
            run.Add("user", async () =>
            {
                try
                {
                    await world.ReadAsync();
                    Assert.True(stops || world.Loop.IsCurrent);
                }
                catch (ConnectionAbortedException)
                {
                    Assert.True(stops);
                }
            });
            run.Add("peer", () => world.Peer.Send("a"));
            if (stops)
            {
                run.Add("stopper", world.StopLoopsAsync);
            }

            run.Explore();
            Assert.True(stops || world.Text.ToString() == "a");
            world.End();
        },
        atLeast,
        departures: 3);

    /// <summary>Cancelled while it is on its way to the loop, or before: it comes back once, and costs no byte.</summary>
    [Fact]
    public void The_first_read_is_cancelled() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run) { FirstReadOnLoop = true };
            run.Add("user", async () =>
            {
                while (world.Text.Length < 1 || world.CancelledReads == 0)
                {
                    await world.ReadAsync();
                }
            });
            run.Add("peer", () => world.Peer.Send("a"));
            run.Add("canceller", world.Input.CancelPendingRead);
            run.Explore();
            Assert.Equal("a", world.Text.ToString());
            Assert.Equal(1, world.CancelledReads);
            world.End();
        },
        atLeast: 150);

    /// <summary>Without an end, which would have everything looked at again.</summary>
    [Fact]
    public void Input_arrives_while_earlier_input_is_read() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            world.Peer.Send("a");
            run.Add("user", async () =>
            {
                while (world.Text.Length < 3)
                {
                    await world.ReadAsync();
                }
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("b");
                world.Peer.Send("c");
            });
            run.Explore();
            Assert.Equal("abc", world.Text.ToString());
            world.End();
        },
        atLeast: 400,
        departures: 2);

    /// <summary>Receives that fill their blocks leave more, offer more the next time, and are read ahead when the end is known.</summary>
    [Theory]
    [InlineData(null, false)]
    [InlineData(5, false)]
    [InlineData(5, true)]
    public void Input_fills_its_blocks(int? limit, bool yields) => Exploring.Run(
        run =>
        {
            var world = new PipeWorld(run, options => options.MaxReadBufferSize = limit, blockSize: 2) { Yields = yields };
            run.Add("user", world.ReadToEndAsync);
            run.Add("peer", () =>
            {
                world.Peer.Send("abcd");
                world.Peer.Send("efghijk");
                world.Peer.Shutdown();
            });
            run.Explore();
            Assert.Equal("abcdefghijk", world.Text.ToString());
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 200);

    [Fact]
    public void A_cancelled_read_costs_no_byte() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run) { Yields = true };
            run.Add("user", async () =>
            {
                while (world.Text.Length < 3 || world.CancelledReads == 0)
                {
                    await world.ReadAsync();
                }
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("ab");
                world.Peer.Send("c");
            });
            run.Add("canceller", world.Input.CancelPendingRead);
            run.Explore();
            Assert.Equal("abc", world.Text.ToString());
            Assert.Equal(1, world.CancelledReads);
            world.End();
        },
        atLeast: 400);

    [Fact]
    public void A_token_ends_its_read_alone() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            using var cancellation = new CancellationTokenSource();
            run.Add("user", async () =>
            {
                try
                {
                    await world.ReadAsync(cancellation.Token);
                }
                catch (OperationCanceledException)
                {
                    Assert.True(cancellation.IsCancellationRequested);
                }

                await world.ReadToEndAsync();
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("ab");
                world.Peer.Shutdown();
            });
            run.Add("canceller", () =>
            {
                Execution.Step("cancels");
                cancellation.Cancel();
            });
            run.Explore();
            Assert.Equal("ab", world.Text.ToString());
            world.End();
        },
        atLeast: 500);

    [Fact]
    public void An_abort_ends_the_reads_with_its_reason() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            var reason = new ConnectionAbortedException("enough");
            run.Add("user", async () => Assert.Same(reason, await Assert.ThrowsAsync<ConnectionAbortedException>(world.ReadToEndAsync)));
            run.Add("peer", () => world.Peer.Send("ab"));
            run.Add("aborter", () => world.Connection.Abort(reason));
            run.Explore();
            Assert.Contains(world.Text.ToString(), (string[])["", "ab"]);
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 1800);

    [Fact]
    public void A_reset_ends_the_reads() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);

            // What it does not receive makes its close a reset.
            Execution.WaitFor("the flush", world.Output.WriteAsync(new byte[1]).AsTask());
            run.Add("user", async () => await Assert.ThrowsAsync<ConnectionResetException>(world.ReadToEndAsync));
            run.Add("peer", () =>
            {
                world.Peer.Send("ab");
                world.Peer.Close();
            });
            run.Explore();
            Assert.Contains(world.Text.ToString(), (string[])["", "ab"]);
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 700);

    /// <summary>The loop may be receiving ahead when the user completes the reader.</summary>
    [Fact]
    public void A_completed_reader_holds_no_block() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxReadBufferSize = null, blockSize: 2);
            run.Add("user", async () =>
            {
                await world.ReadAsync();
                world.Input.Complete();
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("abc");
                world.Peer.Send("de");
                world.Peer.Shutdown();
            });
            run.Explore();
            Assert.Equal(0, world.OutstandingBlocks);
            world.End();
        },
        atLeast: 200);

    /// <summary>Nobody reads for so long that the loop reads ahead; the user comes back at any moment of that.</summary>
    [Fact]
    public void Neglected_input_is_read_ahead_and_not_lost() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxReadBufferSize = 3, blockSize: 2);
            run.Add("user", async () =>
            {
                Execution.WaitForTime(TimeSpan.FromMilliseconds(500));
                await world.ReadToEndAsync();
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("abcdefgh");
                Execution.WaitForTime(TimeSpan.FromMilliseconds(750));
                world.Peer.Shutdown();
            });
            run.Explore();
            Assert.Equal("abcdefgh", world.Text.ToString());
            world.End();
        },
        atLeast: 150,
        departures: 3);

    /// <summary>A connection that ends with its input unread leaves the watch with its end, and not at the next look: the clock stands still until then.</summary>
    [Fact]
    public void The_watch_holds_no_connection_that_has_ended() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            run.Add("peer", () =>
            {
                world.Peer.Send("a");
                Execution.WaitFor("the watch", () => world.Connection.UnreadInputMonitor.Count > 0);
                world.IsDone = true;
            });
            run.Add("aborter", () =>
            {
                Execution.WaitFor("the peer", () => world.IsDone);
                world.Connection.Abort(new ConnectionAbortedException("enough"));
            });
            run.Explore();
            var watch = world.Connection.UnreadInputMonitor;
            world.End();
            Assert.Equal(0, watch.Count);
        },
        atLeast: 20);
}
