using System.IO.Pipelines;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// A flush that waits for room: the operation that its caller awaits, and the loop call that completes it. A connection whose output never
/// waits has none.
/// </summary>
internal sealed class PendingFlush(SocketPipeWriter writer) : PendingOperation<FlushResult>, ILoopCall
{
    private FlushResult _result;
    private LoopCallCost _cost;

    /// <summary>
    /// A CPU-bound continuation counts as a blocking one, because a response must not be queued for a processor in its middle.
    /// </summary>
    LoopCallCost ILoopCall.Cost
    {
        get => _cost;
        set => _cost = value == LoopCallCost.Brief ? LoopCallCost.Brief : LoopCallCost.Blocking;
    }

    /// <summary>
    /// Sets the result, which one of the calls below delivers. Under the writer's gate, by the code that has ended the wait.
    /// </summary>
    internal void End(bool isCanceled, bool isCompleted)
    {
        _result = new FlushResult(isCanceled, isCompleted);
        NoteEnd();
    }

    /// <summary>Completes the flush. If its token was cancelled, the flush fails, whatever its result is.</summary>
    void IThreadPoolWorkItem.Execute() => Complete(_result, IsCancellationRequested ? Cancellation() : null);

    IThreadPoolWorkItem? ILoopCall.Run() => UserCalls.RunInBatch(this);

    protected override void OnTokenCancelled() => writer.OnTokenCancelled(this);
}
