namespace Evio.Transport.Native;

/// <summary>Code that may block, run by <see cref="EventLoop.Invoke"/>.</summary>
/// <remarks>
/// The loop's thread and the workers of the thread pool that make a loop's calls in a row use <see cref="Run"/>. A call that runs alone, on
/// the thread pool or beside its loop, is run by <see cref="IThreadPoolWorkItem.Execute"/>.
/// </remarks>
public interface ILoopCall : IThreadPoolWorkItem
{
    /// <summary>What the call cost the last time it ran.</summary>
    /// <remarks>
    /// Begins as <see cref="LoopCallCost.Brief"/>. <see cref="EventLoop.Invoke"/> of an adaptive group reads and sets it, from different
    /// threads; the last writer wins. Only the implementation itself ever answers <see cref="LoopCallCost.Awaiting"/>.
    /// </remarks>
    LoopCallCost Cost { get; set; }

    /// <summary>Runs the code, as one of several calls in a row.</summary>
    /// <returns>
    /// A flush that the calls in a row share, or <see langword="null"/>. Calls that return the same object are flushed once, on this
    /// thread: when it has no more calls to make, or has made calls for half a millisecond. The flush comes later when one of the calls
    /// blocks, so output that a peer waits for should be monitored, too (<see cref="EventLoop.Watch"/>). A flush must not block. Its
    /// exceptions go to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
    /// </returns>
    IThreadPoolWorkItem? Run();
}
