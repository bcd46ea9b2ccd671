namespace Evio.Transport.Native;

/// <summary>
/// Code that may block, to be run by <see cref="EventLoop.Invoke"/>: through <see cref="Run"/>, or, when it runs on its own account, on the thread pool or beside the loop, through
/// <see cref="IThreadPoolWorkItem.Execute"/>.
/// </summary>
public interface ILoopCall : IThreadPoolWorkItem
{
    /// <summary>
    /// What it cost the last time, kept here for <see cref="EventLoop.Invoke"/> of an adaptive group, which sets it. From different threads, the last of which wins.
    /// </summary>
    LoopCallCost Cost { get; set; }

    /// <summary>
    /// Runs it. Unless the group is <see cref="LoopScheduling.Inline"/>, <see cref="OnOverdue"/> is called if that takes long. So this may keep back until its end
    /// what should not wait for much longer.
    /// </summary>
    void Run();

    /// <summary>
    /// <see cref="Run"/> takes long: whatever it keeps back should not wait any more. Called by another thread, at most once for each run, and
    /// possibly just after its end. It must not block.
    /// </summary>
    void OnOverdue();
}
