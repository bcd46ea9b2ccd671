using System.Threading.Channels;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class InvokeTests
{
    [Fact]
    public async Task A_call_that_blocked_is_made_beside_the_loop_until_it_is_short_again()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        var loop = group.Loops[0];
        var call = new Call(loop);

        // It blocks until the loop is another thread's, and for so long after that that nobody takes it for an interruption.
        Assert.Equal(("Run", true), await call.MakeAsync(() =>
        {
            Waiting.Until(() => !loop.IsCurrent);
            Thread.Sleep(50);
        }));
        Assert.Equal(LoopCallCost.Blocking, await call.NextCostAsync());

        // The loop is free before it has taken any time.
        Assert.Equal(("Execute", false), await call.MakeAsync(() => group.RunAsync(static () => { }).Wait()));

        await call.BecomesBriefAsync();
    }

    [Fact]
    public async Task A_call_that_goes_on_on_the_pool_is_made_there()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        Call call;
        (string How, bool OnLoop) how;
        do
        {
            // On the loop, when the pool has no thread for it; and if that takes long on a busy machine, it does not count as awaiting any more.
            call = new Call(group.Loops[0], LoopCallCost.Awaiting);
            how = await call.MakeAsync(static () => { });
            Assert.Equal("Run", how.How);
        }
        while (how.OnLoop);

        // There it counts as blocking as soon as another worker had to take its place, which makes the other call.
        var other = new Call(group.Loops[0], LoopCallCost.Awaiting);
        _ = await call.MakeAsync(() =>
        {
            other.PostAsync().Wait();
            Thread.Sleep(50);
        });
        Assert.Equal(LoopCallCost.Blocking, await call.NextCostAsync());
    }

    /// <summary>Whoever waits for what a call has left does not wait for others that take long.</summary>
    [Fact]
    public async Task What_is_left_for_long_is_done_before_the_next_call()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Inline);
        var loop = group.Loops[0];
        var order = new List<string>();
        var last = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var rest = new Rest(() =>
        {
            order.Add("rest");
            if (order.Count == 4)
            {
                last.SetResult();
            }
        });
        await group.RunAsync(() =>
        {
            // One pass makes both.
            for (var i = 0; i < 2; i++)
            {
                _ = new Call(loop) { Rest = rest }.MakeAsync(() => order.Add("call"));
                _ = loop.TryPost(static _ => Compute(TimeSpan.FromMilliseconds(1)), null);
            }
        });
        await last.Task.Within();
        Assert.Equal(["call", "rest", "call", "rest"], order);
    }

    [Theory]
    [InlineData(LoopScheduling.Inline)]
    [InlineData(LoopScheduling.Adaptive)]
    [InlineData(LoopScheduling.ThreadPool)]
    public async Task What_is_left_and_throws_is_reported(LoopScheduling scheduling)
    {
        await using var group = new TestGroup(scheduling: scheduling);
        var call = new Call(group.Loops[0]) { Rest = new Rest(static () => throw new InvalidTimeZoneException()) };
        _ = await call.MakeAsync(static () => { });
        Assert.IsType<InvalidTimeZoneException>(group.NextUnhandled());
    }

    [Theory]
    [InlineData(4, 4, 0, LoopCallCost.Brief)]
    [InlineData(50, 50, 0, LoopCallCost.CpuBound)]
    [InlineData(50, 10, 40, LoopCallCost.CpuBound)]
    [InlineData(50, 1, 48, LoopCallCost.Brief)]
    [InlineData(50, 20, 49, LoopCallCost.CpuBound)]
    [InlineData(50, 1, 0, LoopCallCost.Blocking)]
    [InlineData(200, 30, 20, LoopCallCost.Blocking)]
    [InlineData(200, 30, 165, LoopCallCost.CpuBound)]
    public void What_a_call_has_waited_for_a_processor_is_not_its_own_time(int elapsed, int ran, int waited, LoopCallCost cost) =>
        Assert.Equal(cost, CallPlacement.CostOf(Milliseconds(elapsed), new ThreadTimes(Milliseconds(ran), Milliseconds(waited))));

    [Fact]
    public void A_thread_knows_what_it_has_done_with_its_time()
    {
        var before = ThreadTimes.Current;
        Compute(TimeSpan.FromMilliseconds(20));
        var computed = ThreadTimes.Current - before;
        Assert.True(computed.Ran >= TimeSpan.FromMilliseconds(20));

        before = ThreadTimes.Current;
        Thread.Sleep(50);
        var slept = ThreadTimes.Current - before;
        Assert.True(slept.Ran < computed.Ran);
        Assert.True(slept.Ran >= TimeSpan.Zero && (slept.Waited is null || slept.Waited >= TimeSpan.Zero));
    }

    [Fact]
    public async Task Those_that_compute_wait_in_order()
    {
        await using var group = new TestGroup();
        var calls = Enumerable.Range(0, 6).Select(_ => new Call(group.Loops[0])).ToArray();
        var computing = new CpuBoundCalls(limit: 2);
        Assert.Null(computing.BeginOrWait(calls[0]));
        Assert.Null(computing.BeginOrWait(calls[1]));
        var second = computing.BeginOrWait(calls[2])!;
        var third = computing.BeginOrWait(calls[3])!;
        Assert.NotNull(computing.BeginOrWait(calls[4]));

        Assert.Same(calls[2], computing.Next());
        Assert.False(computing.TryWithdraw(second));
        Assert.True(computing.TryWithdraw(third));
        Assert.False(computing.TryWithdraw(third));
        Assert.Same(calls[4], computing.Next());
        Assert.Null(computing.Next());
        Assert.Null(computing.BeginOrWait(calls[5]));
        Assert.NotNull(computing.BeginOrWait(calls[0]));
        Assert.Equal([calls[0]], computing.Withdraw());
        Assert.Null(computing.Next());
        Assert.Null(computing.Next());
    }

    [Fact]
    public async Task As_many_calls_compute_at_once_as_there_are_processors()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        var calls = await MakeThoseThatComputeAsync(group, moreThanProcessors: 2);

        // They hold all processors, as far as anybody knows; the two more wait. The loop goes on meanwhile.
        using var mayReturn = new ManualResetEventSlim();
        using var begun = new CountdownEvent(Environment.ProcessorCount);
        var holders = calls[2..].Select(call => call.MakeAsync(() =>
        {
            begun.Signal();
            Assert.True(mayReturn.Wait(Waiting.Limit));
        })).ToArray();
        Assert.True(begun.Wait(Waiting.Limit));
        var waiting = calls[..2].Select(static call => call.MakeAsync(static () => { })).ToArray();
        await group.RunAsync(static () => { });

        mayReturn.Set();
        Assert.All(await Task.WhenAll([.. holders, .. waiting]).Within(), static how => Assert.Equal(("Execute", false), how));

        // What was brief comes back to the loop.
        await calls[0].BecomesBriefAsync();
    }

    /// <summary>The calls before it may never come to an end, for example because they wait for this one.</summary>
    [Fact]
    public async Task A_call_does_not_wait_for_long_for_those_that_compute()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        var calls = await MakeThoseThatComputeAsync(group, moreThanProcessors: 1);

        using var isMade = new ManualResetEventSlim();
        var holders = calls[1..].Select(call => call.MakeAsync(() => Assert.True(isMade.Wait(Waiting.Limit)))).ToArray();
        Assert.Equal(("Execute", false), await calls[0].MakeAsync(isMade.Set));
        await Task.WhenAll(holders).Within();
    }

    [Fact]
    public async Task Calls_that_wait_for_a_processor_are_made_when_the_loops_end()
    {
        var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        var calls = await MakeThoseThatComputeAsync(group, moreThanProcessors: 1);

        using var isMade = new ManualResetEventSlim();
        using var begun = new CountdownEvent(Environment.ProcessorCount);
        var holders = calls[1..].Select(call => call.MakeAsync(() =>
        {
            begun.Signal();
            Assert.True(isMade.Wait(Waiting.Limit));
        })).ToArray();
        Assert.True(begun.Wait(Waiting.Limit));
        var last = calls[0].MakeAsync(isMade.Set);
        await group.DisposeAsync();

        Assert.Equal(("Execute", false), await last);
        await Task.WhenAll(holders).Within();
    }

    [Fact]
    public async Task A_posted_call_is_invoked_on_the_loop_from_any_thread()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        var call = new Call(group.Loops[0]);
        Assert.Equal(("Run", true), await call.PostAsync());

        await group.DisposeAsync();
        Assert.False(group.Loops[0].TryPost(call));
    }

    private static async Task<Call[]> MakeThoseThatComputeAsync(TestGroup group, int moreThanProcessors)
    {
        var calls = Enumerable.Range(0, Environment.ProcessorCount + moreThanProcessors).Select(_ => new Call(group.Loops[0])).ToArray();
        foreach (var call in calls)
        {
            await call.ComputesAsync();
        }

        return calls;
    }

    private static TimeSpan Milliseconds(int count) => TimeSpan.FromMilliseconds(count);

    /// <summary>Uses a processor, for at least so long by its own clock.</summary>
    private static void Compute(TimeSpan time)
    {
        var begin = ThreadTimes.Current.Ran;
        do
        {
            Thread.SpinWait(100_000);
        }
        while (ThreadTimes.Current.Ran - begin < time);
    }

    private sealed class Rest(Action action) : IThreadPoolWorkItem
    {
        void IThreadPoolWorkItem.Execute() => action();
    }

    private sealed class Call(EventLoop loop, LoopCallCost cost = LoopCallCost.Brief) : ILoopCall
    {
        private Action _body = static () => { };
        private (string How, bool OnLoop) _last;
        private readonly Channel<LoopCallCost> _costs = Channel.CreateUnbounded<LoopCallCost>();
        private TaskCompletionSource _made = new();
        private LoopCallCost _cost = cost;

        LoopCallCost ILoopCall.Cost
        {
            get => _cost;
            set
            {
                _cost = value;
                Assert.True(_costs.Writer.TryWrite(value));
            }
        }

        internal IThreadPoolWorkItem? Rest { get; init; }

        /// <summary>The next cost that the loop has found. It says so after the call, which is made before that.</summary>
        internal Task<LoopCallCost> NextCostAsync() => _costs.Reader.ReadAsync().AsTask().Within();

        /// <summary>Has the loop make the call, and returns when it has been made, with how and whether on the loop's thread.</summary>
        internal async Task<(string How, bool OnLoop)> MakeAsync(Action body)
        {
            _body = body;
            return await PostAsync();
        }

        /// <summary>Makes one that is late and one that computes, which the next one is then expected to do.</summary>
        internal async Task ComputesAsync()
        {
            _ = await MakeAsync(() =>
            {
                Waiting.Until(() => !loop.IsCurrent);
                Thread.Sleep(50);
            });
            Assert.Equal(LoopCallCost.Blocking, await NextCostAsync());
            do
            {
                // Not each time is it seen on a machine that is busy, or stopped by its host.
                _ = await MakeAsync(static () => Compute(TimeSpan.FromMilliseconds(20)));
            }
            while (await NextCostAsync() != LoopCallCost.CpuBound);
        }

        /// <summary>Makes brief ones until they come back to the loop, which takes more than two on a busy machine.</summary>
        internal async Task BecomesBriefAsync()
        {
            (string How, bool OnLoop) last;
            do
            {
                last = await MakeAsync(static () => { });
            }
            while (last.How != "Run");

            Assert.True(last.OnLoop);
        }

        internal async Task<(string How, bool OnLoop)> PostAsync()
        {
            _made = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Assert.True(loop.TryPost(this));
            await _made.Task.Within();
            return _last;
        }

        IThreadPoolWorkItem? ILoopCall.Run()
        {
            Make("Run");
            return Rest;
        }

        void IThreadPoolWorkItem.Execute() => Make("Execute");

        private void Make(string how)
        {
            // Not whether it has the turn, which it may have lost at once on a busy machine.
            _last = (how, LoopThread.Current?.Loop == loop);
            _body();
            _made.SetResult();
        }
    }
}
