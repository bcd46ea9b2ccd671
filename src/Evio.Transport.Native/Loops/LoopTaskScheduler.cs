namespace Evio.Transport.Native.Loops;

/// <summary>Runs tasks as posted calls of a loop; after the loop's end, on the thread pool, so that no task is lost.</summary>
internal sealed class LoopTaskScheduler(EventLoop loop) : TaskScheduler
{
    protected override void QueueTask(Task task)
    {
        if (!loop.TryPost(
                static state =>
                {
                    var (scheduler, task) = ((LoopTaskScheduler, Task))state!;
                    scheduler.TryExecuteTask(task);
                },
                (this, task)))
        {
            ThreadPool.UnsafeQueueUserWorkItem(static state => state.Scheduler.TryExecuteTask(state.Task), (Scheduler: this, Task: task), preferLocal: false);
        }
    }

    // A task that is queued stays there, and keeps its place among the posted calls.
    protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) => !taskWasPreviouslyQueued && loop.IsCurrent && TryExecuteTask(task);

    /// <remarks>For debuggers only, which do without.</remarks>
    protected override IEnumerable<Task> GetScheduledTasks() => throw new NotSupportedException();
}
