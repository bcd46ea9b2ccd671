namespace Evio.Transport.Native;

/// <summary>
/// Code that may block, to be run by <see cref="EventLoop.Invoke"/>: through <see cref="Run"/>, as one of the calls that a thread makes one after the other; or, when it runs on its own account, on the
/// thread pool or beside the loop, through <see cref="IThreadPoolWorkItem.Execute"/>.
/// </summary>
public interface ILoopCall : IThreadPoolWorkItem
{
    /// <summary>
    /// What it cost the last time, kept here for <see cref="EventLoop.Invoke"/> of an adaptive group, which sets it, but to <see cref="LoopCallCost.Awaiting"/>. From different threads, the last
    /// of which wins.
    /// </summary>
    LoopCallCost Cost { get; set; }

    /// <summary>Runs it, as one of several calls.</summary>
    /// <returns>
    /// What is left to be done, once for all calls that return the same, or <see langword="null"/>. It is executed on this thread, when that has no more calls to make or has made some for half a millisecond, and later if
    /// one of them does not return: who leaves something for which others wait has it looked after (<see cref="EventLoop.Watch"/>). Must not block. What it throws goes to
    /// <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
    /// </returns>
    IThreadPoolWorkItem? Run();
}
