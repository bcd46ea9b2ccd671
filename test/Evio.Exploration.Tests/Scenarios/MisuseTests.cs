using System.IO.Pipelines;

namespace Exploration.Scenarios;

/// <summary>
/// Callers that begin another operation before they have seen the end of the one before, or go on with a read that is over. They may be refused; nothing is completed twice, and
/// no block is given back while it is received into.
/// </summary>
public sealed class MisuseTests
{
    [Fact]
    public void A_read_follows_one_whose_token_is_cancelled_and_that_is_not_awaited() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            using var cancellation = new CancellationTokenSource();
            run.Add("user", async () =>
            {
                var forgotten = world.Input.ReadAsync(cancellation.Token);
                Execution.WaitFor("the cancellation", () => cancellation.IsCancellationRequested);
                for (var i = 0; i < 3; i++)
                {
                    try
                    {
                        await world.ReadAsync();
                        return;
                    }
                    catch (InvalidOperationException)
                    {
                        // The first one is still on its way.
                        await PipeWorld.ToPool();
                    }
                }

                GC.KeepAlive(forgotten.IsCompleted);
            });
            run.Add("peer", () => world.Peer.Send("a"));
            run.Add("canceller", () =>
            {
                Execution.Step("cancels");
                cancellation.Cancel();
            });
            run.Explore();
            world.End();
        },
        atLeast: 400);

    [Fact]
    public void A_cancelled_read_is_advanced_for_while_the_next_one_receives() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run);
            world.Peer.Send("a");
            ReadResult first = default;
            run.Add("user", async () =>
            {
                var read = await world.Input.ReadAsync();
                world.Input.AdvanceTo(read.Buffer.Start, read.Buffer.End);
                world.Input.CancelPendingRead();
                first = await world.Input.ReadAsync();
                Assert.True(first.IsCanceled);
                world.IsDone = true;
                var next = await world.Input.ReadAsync();
                Assert.EndsWith("b", System.Text.Encoding.ASCII.GetString(System.Buffers.BuffersExtensions.ToArray(next.Buffer)), StringComparison.Ordinal);
            });
            run.Add("other", () =>
            {
                Execution.WaitFor("the first read", () => world.IsDone);
                Execution.Step("advances");
                try
                {
                    world.Input.AdvanceTo(first.Buffer.End);
                }
                catch (InvalidOperationException)
                {
                    // The next one has come to its end, and its buffer is another one.
                }
            });
            run.Add("peer", () =>
            {
                Execution.WaitFor("the first read", () => world.IsDone);
                world.Peer.Send("b");
            });
            run.Explore();
            world.End();
        },
        atLeast: 40);

    [Fact]
    public void A_flush_follows_one_that_was_cancelled_and_is_not_awaited() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxWriteBufferSize = 1, sendBuffer: 4608);
            var large = new byte[10_000];
            run.Add("user", async () =>
            {
                var forgotten = world.Output.WriteAsync(large);
                world.Output.CancelPendingFlush();
                await Execution.Later(world.Output.FlushAsync());
                world.Output.Complete();
                GC.KeepAlive(forgotten.IsCompleted);
            });
            run.Add("peer", () => world.Peer.Receive());
            run.Explore();
            Assert.Equal(large, world.Peer.Received);
            world.End();
        },
        atLeast: 50,
        departures: 1);

    [Fact]
    public void Two_threads_flush_at_once() => Exploring.Run(
        static run =>
        {
            var world = new PipeWorld(run, static options => options.MaxWriteBufferSize = 1, sendBuffer: 4608);
            var large = new byte[10_000];
            System.Buffers.BuffersExtensions.Write(world.Output, large);
            for (var i = 0; i < 2; i++)
            {
                run.Add("user", async () =>
                {
                    try
                    {
                        await Execution.Later(world.Output.FlushAsync());
                    }
                    catch (InvalidOperationException)
                    {
                        // The other one waits.
                    }
                });
            }

            run.Add("peer", () => world.Peer.Receive(large.Length));
            run.Explore();
            Assert.Equal(large, world.Peer.Received);
            world.End();
        },
        atLeast: 40,
        departures: 1);
}
