namespace Evio.Transport.Native;

/// <summary>
/// Code that may block, to be run by <see cref="EventLoop.Invoke"/>: through <see cref="Run"/>, or, when it runs on its own account, on the thread pool or beside the loop, through
/// <see cref="IThreadPoolWorkItem.Execute"/>.
/// </summary>
public interface ILoopCall : IThreadPoolWorkItem
{
    /// <summary>
    /// What it cost the last time, kept here for <see cref="EventLoop.Invoke"/> of an adaptive group, which sets it, but to <see cref="LoopCallCost.Awaiting"/>. From different threads, the last
    /// of which wins.
    /// </summary>
    LoopCallCost Cost { get; set; }

    /// <summary>Runs it.</summary>
    void Run();
}
