using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class TaskSchedulerTests
{
    [Fact]
    public async Task A_task_and_what_it_awaits_run_on_the_loop()
    {
        await using var group = new TestGroup(loops: 2);
        var loop = group.Loops[1];
        var elsewhere = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

        var ran = Task.Factory.StartNew(
            async () =>
            {
                var began = loop.IsCurrent;
                await elsewhere.Task;
                return (began, loop.IsCurrent, TaskScheduler.Current == loop.TaskScheduler);
            },
            CancellationToken.None, TaskCreationOptions.None, loop.TaskScheduler).Unwrap();
        elsewhere.SetResult();

        Assert.Equal((true, true, true), await ran.Within());
    }

    [Fact]
    public async Task Tasks_keep_their_order_among_the_posted_calls()
    {
        await using var group = new TestGroup();
        var loop = group.Loops[0];
        var order = new List<int>();
        using (group.KeepBusy())
        {
            for (var i = 0; i < 100; i += 2)
            {
                var (task, call) = (i, i + 1);
                _ = Task.Factory.StartNew(() => order.Add(task), CancellationToken.None, TaskCreationOptions.None, loop.TaskScheduler);
                Assert.True(loop.TryPost(_ => order.Add(call), null));
            }
        }

        await group.SettleAsync();
        Assert.Equal(Enumerable.Range(0, 100), order);
    }

    [Fact]
    public async Task A_wait_on_the_loop_runs_a_task_that_is_not_queued_at_once()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Inline);
        var loop = group.Loops[0];

        await group.RunAsync(() =>
        {
            var task = new Task<bool>(() => loop.IsCurrent);
            task.RunSynchronously(loop.TaskScheduler);
            Assert.True(task.Result);
        });
    }

    [Fact]
    public async Task After_the_loops_end_a_task_runs_on_the_thread_pool()
    {
        EventLoop loop;
        await using (var group = new TestGroup())
        {
            loop = group.Loops[0];
        }

        Assert.True(await Task.Factory.StartNew(
            static () => Thread.CurrentThread.IsThreadPoolThread, CancellationToken.None, TaskCreationOptions.None, loop.TaskScheduler).Within());
    }
}
