using System.Buffers;
using System.Text;
using Evio.Transport;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;

namespace Exploration.Scenarios;

/// <summary>The output of a connection: every flushed byte arrives once and in order, and every flush that waits ends.</summary>
public sealed class WriterTests
{
    // The smallest that Linux has; a send of more is taken in part.
    private const int SmallBuffer = 4608;

    private static readonly byte[] Large = [.. Enumerable.Range(0, 10_000).Select(static i => (byte)('a' + (i % 23)))];

    [Fact]
    public void Flushes_wait_for_room_and_everything_arrives() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxWriteBufferSize = 1, sendBuffer: SmallBuffer);
            run.Add("user", async () =>
            {
                foreach (var part in Large.Chunk(6_000))
                {
                    var result = await Execution.Later(world.Output.WriteAsync(part));
                    Assert.False(result.IsCompleted || result.IsCanceled);
                }

                world.Output.Complete();
            });
            run.Add("peer", () => world.Peer.Receive());
            run.Explore();
            Assert.Equal(Large, world.Peer.Received);
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 2500);

    [Fact]
    public void A_cancelled_flush_costs_no_byte() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxWriteBufferSize = 1, sendBuffer: SmallBuffer);
            var cancelled = 0;
            run.Add("user", async () =>
            {
                cancelled += (await Execution.Later(world.Output.WriteAsync(Large))).IsCanceled ? 1 : 0;
                cancelled += (await Execution.Later(world.Output.FlushAsync())).IsCanceled ? 1 : 0;
                world.Output.Complete();
            });
            run.Add("peer", () => world.Peer.Receive());
            run.Add("canceller", world.Output.CancelPendingFlush);
            run.Explore();
            Assert.Equal(Large, world.Peer.Received);
            Assert.InRange(cancelled, 0, 1);
            world.End();
        },
        atLeast: 80,
        departures: 1);

    [Fact]
    public void A_token_ends_its_flush_alone() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxWriteBufferSize = 1, sendBuffer: SmallBuffer);
            using var cancellation = new CancellationTokenSource();
            run.Add("user", async () =>
            {
                try
                {
                    world.Output.Write(Large);
                    await Execution.Later(world.Output.FlushAsync(cancellation.Token));
                }
                catch (OperationCanceledException)
                {
                    Assert.True(cancellation.IsCancellationRequested);
                }

                Assert.False((await Execution.Later(world.Output.FlushAsync())).IsCanceled);
                world.Output.Complete();
            });
            run.Add("peer", () => world.Peer.Receive());
            run.Add("canceller", () =>
            {
                Execution.Step("cancels");
                cancellation.Cancel();
            });
            run.Explore();
            Assert.Equal(Large, world.Peer.Received);
            world.End();
        },
        atLeast: 80,
        departures: 1);

    [Fact]
    public void An_abort_ends_a_flush_that_waits() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxWriteBufferSize = 1, sendBuffer: SmallBuffer);
            run.Add("user", async () =>
            {
                await Execution.Later(world.Output.WriteAsync(Large));
                await Execution.Later(world.Output.WriteAsync(Large));
                world.Output.Complete();
            });
            run.Add("peer", () => world.Peer.Receive());
            run.Add("aborter", () => world.Connection.Abort(new ConnectionAbortedException("enough")));
            run.Explore();
            Assert.True(((byte[])[.. Large, .. Large]).AsSpan().StartsWith(world.Peer.Received.ToArray()));
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 120,
        departures: 1);

    /// <summary>A broadcast to a connection whose handler returns at that moment: it arrives, or is refused, and its blocks come back once.</summary>
    [Fact]
    public void A_write_meets_the_completion() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, blockSize: 2, rentsInSteps: true);
            var refused = false;
            run.Add("broadcaster", async () =>
            {
                try
                {
                    await Execution.Later(world.Output.WriteAsync("abcde"u8.ToArray()));
                }
                catch (InvalidOperationException)
                {
                    refused = true;
                }
            });
            run.Add("handler", () =>
            {
                Execution.Step("returns");
                world.Output.Complete();
            });
            run.Add("peer", () => world.Peer.Receive());
            run.Explore();
            Assert.Equal(refused ? "" : "abcde", world.Peer.ReceivedText);
            world.End();
        },
        atLeast: 100);

    /// <summary>Two broadcasts to one connection. Each arrives whole.</summary>
    [Fact]
    public void A_write_meets_another() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, blockSize: 2, rentsInSteps: true);
            foreach (var message in (string[])["abcde", "ABCDE"])
            {
                run.Add(message, async () => await Execution.Later(world.Output.WriteAsync(Encoding.ASCII.GetBytes(message))));
            }

            run.Add("peer", () => world.Peer.Receive("abcdeABCDE".Length));
            run.Explore();
            Assert.Contains(world.Peer.ReceivedText, (string[])["abcdeABCDE", "ABCDEabcde"]);
            world.End();
        },
        atLeast: 100);

    /// <summary>The user's code blocks until its peer has what it has flushed. Nothing but the monitor can send that.</summary>
    [Theory]
    [InlineData(LoopScheduling.Adaptive, false)]
    [InlineData(LoopScheduling.ThreadPool, false)]
    [InlineData(LoopScheduling.Inline, false)]
    [InlineData(LoopScheduling.Inline, true)]
    public void A_flush_leaves_while_its_thread_blocks(LoopScheduling scheduling, bool onPool) => Exploring.Run(
        run =>
        {
            var world = new PipeWorld(run, options => options.Scheduling = scheduling);
            run.Add("user", async () =>
            {
                var read = await world.Input.ReadAsync();
                if (onPool)
                {
                    await PipeWorld.ToPool();
                }

                await world.FlushAsync('x');
                Execution.WaitFor("its arrival", () => world.IsDone);
                await world.FlushAsync('y');
                world.Input.AdvanceTo(read.Buffer.End);

                // The next call may begin before the monitor is through with its send.
                world.Input.AdvanceTo((await world.Input.ReadAsync()).Buffer.End);
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("a");
                world.Peer.Receive(1);
                world.IsDone = true;
                world.Peer.Send("b");
                world.Peer.Receive(2);
            });
            run.Explore();
            Assert.Equal("xy", world.Peer.ReceivedText);
            world.End();
        },
        atLeast: 100,
        departures: 2);

    /// <summary>
    /// The answers of two connections, whose input is there at once: each is one send of two flushes, at the latest after the other's call, and they come although that blocks until the first one has come, once it was flushed.
    /// </summary>
    [Theory]
    [InlineData(LoopScheduling.Adaptive, false)]
    [InlineData(LoopScheduling.ThreadPool, false)]
    [InlineData(LoopScheduling.Inline, false)]
    [InlineData(LoopScheduling.Adaptive, true)]
    [InlineData(LoopScheduling.ThreadPool, true)]
    [InlineData(LoopScheduling.Inline, true)]
    public void An_answer_leaves_while_another_connections_call_runs(LoopScheduling scheduling, bool blocks)
    {
        var fewest = int.MaxValue;
        Exploring.Run(
            run =>
            {
                var world = new PipeWorld(run, options => options.Scheduling = scheduling);
                var (other, otherPeer) = world.Connect();
                var hasFlushed = false;
                AddUser(world.Connection, world.Peer);
                AddUser(other, otherPeer);
                run.Explore();
                Assert.Equal("abAB", world.Peer.ReceivedText);
                Assert.Equal("abAB", otherPeer.ReceivedText);
                fewest = Math.Min(fewest, run.CountOf("send") + run.CountOf("sendmsg"));
                other.Abort(new ConnectionAbortedException("The scenario ends."));
                Execution.WaitFor("the other connection's end", other.DisposeAsync());
                otherPeer.Dispose();
                world.End();

                void AddUser(EvioConnection connection, Peer peer)
                {
                    var isOther = connection == other;
                    run.Add(isOther ? "other user" : "user", async () =>
                    {
                        foreach (var answer in (string[])["ab", "AB"])
                        {
                            var read = await connection.Input.ReadAsync();
                            connection.Input.AdvanceTo(read.Buffer.End);
                            if (isOther && blocks && hasFlushed)
                            {
                                Execution.WaitFor("the first answer", () => world.IsDone);
                            }

                            foreach (var what in answer)
                            {
                                connection.Output.GetSpan(1)[0] = (byte)what;
                                connection.Output.Advance(1);
                                await connection.Output.FlushAsync();
                            }

                            hasFlushed |= !isOther;
                        }

                        // Not an end, which would send at once.
                        connection.Input.AdvanceTo((await connection.Input.ReadAsync()).Buffer.End);
                    });
                    run.Add(isOther ? "other peer" : "peer", () =>
                    {
                        peer.Send("1");
                        peer.Receive(2);
                        world.IsDone |= !isOther;
                        peer.Send("2");
                        peer.Receive(4);
                        peer.Send("3");
                    });
                }
            },
            atLeast: 100,
            departures: 1);
        Assert.Equal(4, fewest);
    }

    /// <summary>The thread of the call sends what it has flushed while the user goes on on the pool, and leaves what comes meanwhile.</summary>
    [Fact]
    public void What_comes_while_others_wait_for_the_sender_leaves() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            run.Add("user", async () =>
            {
                world.Input.AdvanceTo((await world.Input.ReadAsync()).Buffer.End);
                await world.FlushAsync('a');
                await PipeWorld.ToPool();
                for (var what = 'b'; what <= 'd'; what++)
                {
                    // Not before the send for the one before has begun.
                    await world.FlushAsync(what);
                    var arrived = what - 'a';
                    Execution.WaitFor("the one before", () => world.Peer.Received.Count >= arrived);
                }
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("1");
                for (var count = 1; count <= 4; count++)
                {
                    world.Peer.Receive(count);
                }
            });
            run.Explore();
            Assert.Equal("abcd", world.Peer.ReceivedText);
            world.End();
        },
        atLeast: 100,
        departures: 2);

    /// <summary>A user who answers twice for each input, on the pool: what he has flushed leaves when his work item ends, when he reads again or when the monitor looks.</summary>
    [Fact]
    public void An_answer_leaves_before_the_next_input_is_waited_for()
    {
        var fewest = int.MaxValue;
        Exploring.Run(
            run =>
            {
                var world = new PipeWorld(run);
                run.Add("user", async () =>
                {
                    for (var i = 0; i < 2; i++)
                    {
                        var result = await Execution.Later(world.Input.ReadAsync());
                        world.Input.AdvanceTo(result.Buffer.End);
                        await PipeWorld.ToPool();
                        await world.FlushAsync('A');
                        await world.FlushAsync('B');
                    }

                    world.Output.Complete();
                    world.IsDone = true;
                });
                run.Add("peer", () =>
                {
                    world.Peer.Send("a");
                    world.Peer.Receive(2);
                    world.Peer.Send("b");
                    world.Peer.Receive();
                });
                run.Add("monitor", world.FindOverdue);
                run.Explore();
                Assert.Equal("ABAB", world.Peer.ReceivedText);
                fewest = Math.Min(fewest, run.CountOf("send") + run.CountOf("sendmsg"));
                world.End();
            },
            atLeast: 100,
            departures: 2);
        Assert.Equal(2, fewest);
    }

    /// <summary>Room and input may be reported by one event, and whoever waits for the flush then waits for the input on the same thread.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_flush_that_goes_on_may_wait_for_input(bool readsMeanwhile) => Exploring.Run(
        run =>
        {
            // Without a limit the loop reads ahead what nobody reads.
            var world = new PipeWorld(
                run,
                options => (options.Scheduling, options.MaxWriteBufferSize, options.MaxReadBufferSize) = (LoopScheduling.Adaptive, 1, readsMeanwhile ? 1024 : null),
                sendBuffer: SmallBuffer);
            if (readsMeanwhile)
            {
                run.Add("reader", () => world.ReadAsync());
            }

            run.Add("writer", async () =>
            {
                await Execution.Later(world.Output.WriteAsync(Large));
                var read = readsMeanwhile ? Task.CompletedTask : world.ReadAsync();
                Execution.WaitFor("the input", () => world.Text.Length > 0);
                await read;
            });
            run.Add("peer", () =>
            {
                world.Peer.Receive(5_000);
                world.Peer.Send("a");
                world.Peer.Receive(Large.Length);
            });
            run.Explore();
            Assert.Equal("a", world.Text.ToString());
            world.End();
        },
        atLeast: 500,
        departures: 2);

    [Fact]
    public void A_peer_that_leaves_ends_a_flush_that_waits() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxWriteBufferSize = 1, sendBuffer: SmallBuffer);
            run.Add("user", async () =>
            {
                await Execution.Later(world.Output.WriteAsync(Large));
                var result = await Execution.Later(world.Output.WriteAsync(Large));
                Assert.True(result.IsCompleted);
            });
            run.Add("peer", () =>
            {
                world.Peer.Receive(5_000);
                world.Peer.Close();
            });
            run.Explore();
            Assert.Equal(1, world.Closed);
            world.End();
        },
        atLeast: 1300);

    [Fact]
    public void A_disposed_connection_has_sent_everything() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxWriteBufferSize = null, sendBuffer: SmallBuffer);
            run.Add("user", async () =>
            {
                await Execution.Later(world.Output.WriteAsync(Large));
                await world.Connection.DisposeAsync();
            });
            run.Add("peer", () => world.Peer.Receive());
            run.Explore();
            Assert.Equal(Large, world.Peer.Received);
            world.End();
        },
        atLeast: 50,
        departures: 1);

    /// <summary>Pipelined requests: a flush waits for company. The user goes on elsewhere in between, and it may be found overdue at any moment.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_deferred_flush_leaves(bool yields) => Exploring.Run(
        run =>
        {
            var world = new PipeWorld(run);
            run.Add("user", async () =>
            {
                while (true)
                {
                    var result = await Execution.Later(world.Input.ReadAsync());
                    if (result.Buffer.IsEmpty)
                    {
                        Assert.True(result.IsCompleted);
                        break;
                    }

                    // One request of those that came.
                    var request = result.Buffer.Slice(0, 1);
                    var answer = (char)(request.FirstSpan[0] - 32);
                    world.Input.AdvanceTo(request.End);
                    await Execution.Later(world.FlushAsync(answer));
                    if (yields)
                    {
                        await PipeWorld.ToPool();
                    }
                }

                world.Input.Complete();
                world.Output.Complete();
                world.IsDone = true;
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("abc");
                world.Peer.Receive(3);
                world.Peer.Shutdown();
                world.Peer.Receive();
            });
            run.Add("monitor", world.FindOverdue);
            run.Explore();
            Assert.Equal("ABC", world.Peer.ReceivedText);
            world.End();
        },
        atLeast: 60,
        departures: 1);

    /// <summary>The user writes on while a flush waits for company, into the block that it has lent.</summary>
    [Fact]
    public void A_lent_block_is_the_writers_or_the_senders() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            run.Add("user", async () =>
            {
                var result = await Execution.Later(world.Input.ReadAsync());
                var first = result.Buffer.Slice(0, 1);
                world.Input.AdvanceTo(first.End);
                foreach (var what in "ABC")
                {
                    await Execution.Later(world.FlushAsync(what));
                }

                world.Input.Complete();
                await PipeWorld.ToPool();
                world.Output.Complete();
                world.IsDone = true;
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("ab");
                world.Peer.Receive();
            });
            run.Add("monitor", world.FindOverdue);
            run.Explore();
            Assert.Equal("ABC", world.Peer.ReceivedText);
            Assert.Equal(0, world.OutstandingBlocks);
            world.End();
        },
        atLeast: 100,
        departures: 1);

    /// <summary>Flushes on threads of the pool wait for one send, and the user writes on and ends meanwhile.</summary>
    [Theory]
    [InlineData(true, false)]
    [InlineData(true, true)]
    [InlineData(false, false)]
    public void A_deferred_send_takes_all_flushes_along(bool coalesces, bool abort)
    {
        var fewest = int.MaxValue;
        var most = 0;
        Exploring.Run(
            run =>
            {
                var world = new PipeWorld(run);
                world.Connection.IsOutbound = !coalesces;
                run.Add("user", async () =>
                {
                    foreach (var what in "ABCDE")
                    {
                        await Execution.Later(world.FlushAsync(what));
                    }

                    world.Output.Complete();
                });
                run.Add("peer", () => world.Peer.Receive());
                if (abort)
                {
                    run.Add("aborter", () => world.Connection.Abort(new ConnectionAbortedException("enough")));
                }

                run.Explore();
                Assert.StartsWith(world.Peer.ReceivedText, "ABCDE", StringComparison.Ordinal);
                if (!abort)
                {
                    Assert.Equal(5, world.Peer.Received.Count);
                    var sends = run.CountOf("send") + run.CountOf("sendmsg");
                    fewest = Math.Min(fewest, sends);
                    most = Math.Max(most, sends);
                }

                world.End();
            },
            atLeast: 100,
            departures: 2);
        if (!abort)
        {
            // All together; or nearly each by itself, when the pool is so quick, as often as two departures permit.
            Assert.Equal(coalesces ? (1, 4) : (5, 5), (fewest, most));
        }
    }

    /// <summary>Of whoever is found to take long nothing waits any more.</summary>
    [Fact]
    public void An_overdue_call_waits_for_no_company() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.Scheduling = LoopScheduling.ThreadPool);
            run.Add("user", async () =>
            {
                var result = await Execution.Later(world.Input.ReadAsync());
                world.Input.AdvanceTo(result.Buffer.GetPosition(1));
                var queued = run.CountOf("queues a work item");
                await Execution.Later(world.FlushAsync('A'));

                // Otherwise he has read it himself, or the monitor was here already.
                var isDelivered = world.Connection.Output.HasDeferred && run.CountOf("queues a work item") == queued;
                Execution.WaitFor("the monitor", () => !world.Connection.Output.HasDeferred);
                world.IsDone = true;
                queued = run.CountOf("queues a work item");
                foreach (var what in "BCDEF")
                {
                    await world.FlushAsync(what);
                }

                Assert.True(!isDelivered || run.CountOf("queues a work item") == queued);
                world.Input.Complete();
                world.Output.Complete();
            });
            run.Add("peer", () =>
            {
                world.Peer.Send("ab");
                world.Peer.Receive();
            });
            run.Add("monitor", world.FindOverdue);
            run.Explore();
            Assert.Equal("ABCDEF", world.Peer.ReceivedText);
            world.End();
        },
        atLeast: 20,
        departures: 1);
}
