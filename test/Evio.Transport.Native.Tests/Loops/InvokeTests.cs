using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class InvokeTests
{
    [Fact]
    public async Task A_call_that_took_long_is_made_beside_the_loop_until_it_is_short_again()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        var loop = group.Loops[0];
        var call = new Call(loop);

        // It blocks until the loop is another thread's, and for so long after that that nobody takes it for an interruption.
        Assert.Equal(("Run", true), await call.MakeAsync(() =>
        {
            Assert.True(call.Overdue.Wait(Waiting.Limit));
            Thread.Sleep(50);
        }));
        Assert.True(call.Made.TakesLong);

        // The loop is free before it has taken any time: nobody is told that it is overdue.
        call.Overdue.Reset();
        Assert.Equal(("Execute", false), await call.MakeAsync(() => group.RunAsync(static () => { }).Wait()));
        Assert.False(call.Overdue.IsSet);

        // Short ones come back to the loop, sooner or later on a busy machine.
        (string How, bool OnLoop) last;
        do
        {
            last = await call.MakeAsync(static () => { });
        }
        while (last.How != "Run");

        Assert.True(last.OnLoop);
    }

    private sealed class Call(EventLoop loop) : ILoopCall
    {
        private Action _body = static () => { };
        private (string How, bool OnLoop) _last;

        internal ManualResetEventSlim Overdue { get; } = new();

        internal ILoopCall Made => this;

        bool ILoopCall.TakesLong { get; set; }

        /// <summary>Has the loop make the call, and returns when it has been made, with how and whether its thread had the turn when it began.</summary>
        internal async Task<(string How, bool OnLoop)> MakeAsync(Action body)
        {
            _body = body;
            var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Assert.True(loop.TryPostInternal(
                _ =>
                {
                    loop.Invoke(this);
                    done.SetResult();
                },
                null));
            await done.Task.Within();
            return _last;
        }

        void ILoopCall.Run() => Make("Run");

        void IThreadPoolWorkItem.Execute() => Make("Execute");

        void ILoopCall.OnOverdue() => Overdue.Set();

        private void Make(string how)
        {
            _last = (how, loop.IsCurrent);
            _body();
        }
    }
}
