using Microsoft.AspNetCore.Connections;

namespace Exploration.Scenarios;

/// <summary>The ends of a connection: whoever comes first, it is closed once, its end is told once, and nothing is left behind.</summary>
public sealed class ConnectionEndTests
{
    [Fact]
    public void Ends_from_both_sides_and_an_abort() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            run.Add("disposer", () => world.Connection.DisposeAsync().AsTask());
            run.Add("aborter", () => world.Connection.Abort(new ConnectionAbortedException("enough")));
            run.Add("peer", world.Peer.Close);
            run.Explore();
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 2500);

    [Fact]
    public void The_loop_stops_while_the_user_reads_and_writes() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            run.Add("user", async () =>
            {
                await Execution.Later(world.Output.WriteAsync(new byte[1]));
                await Assert.ThrowsAsync<ConnectionAbortedException>(world.ReadToEndAsync);
                await world.Connection.DisposeAsync();
            });
            run.Add("peer", () => world.Peer.Send("ab"));
            run.Add("stopper", world.StopLoopsAsync);
            run.Explore();
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 90,
        departures: 1);

    /// <summary>The peer's end and the output's completion meet.</summary>
    [Fact]
    public void The_last_output_and_the_peers_end() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            run.Add("reader", world.ReadUntilClosedAsync);
            run.Add("writer", async () =>
            {
                await Execution.Later(world.Output.WriteAsync("xy"u8.ToArray()));
                world.Output.Complete();
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("ab");
                world.Peer.Shutdown();
                world.Peer.Receive();
            });
            run.Explore();
            Assert.Equal("xy", world.Peer.ReceivedText);
            Assert.StartsWith(world.Text.ToString(), "ab", StringComparison.Ordinal);
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 100,
        departures: 1);

    /// <summary>After it the pool may end, and the last block is back: a flush or a read that is on its way to its system call has been waited for.</summary>
    [Theory]
    [InlineData(true, 400)]
    [InlineData(false, 400)]
    public void After_a_disposal_nothing_is_sent_or_received(bool sends, int atLeast) => Exploring.Run(
        run =>
        {
            var world = new PipeWorld(run);
            if (sends)
            {
                world.Write('x');
            }
            else
            {
                world.Peer.Send("a");
            }

            run.Add("user", async () =>
            {
                try
                {
                    if (sends)
                    {
                        await world.Output.FlushAsync();
                    }
                    else
                    {
                        await world.Input.ReadAsync();
                    }
                }
                catch (Exception exception) when (exception is ConnectionAbortedException or InvalidOperationException)
                {
                    // The other one was first.
                }
            });
            run.Add("owner", async () =>
            {
                world.Connection.Abort(new ConnectionAbortedException("enough"));
                await world.Connection.DisposeAsync();
                Assert.Equal(0, world.OutstandingBlocks);
            });
            run.Explore();
            world.End();
        },
        atLeast);
}
