using System.IO.Pipelines;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// The flush of a writer that waits for room: what its user awaits, and the call that tells the user how it has ended. A connection whose output never waits has none.
/// </summary>
internal sealed class PendingFlush(SocketPipeWriter writer) : PendingOperation<FlushResult>, ILoopCall
{
    private FlushResult _result;
    private LoopCallCost _cost;

    /// <summary>In the middle of a response nobody waits for a processor: what computes there is taken for one that blocks.</summary>
    LoopCallCost ILoopCall.Cost
    {
        get => _cost;
        set => _cost = value == LoopCallCost.Brief ? LoopCallCost.Brief : LoopCallCost.Blocking;
    }

    /// <summary>Sets what the user will be told, by one of the calls below. Under the writer's gate, by whoever ended the wait.</summary>
    internal void End(bool isCanceled, bool isCompleted)
    {
        _result = new FlushResult(isCanceled, isCompleted);
        NoteEnd();
    }

    /// <summary>Tells the user. A cancelled token has the flush fail whatever its result is.</summary>
    void IThreadPoolWorkItem.Execute() => Complete(_result, IsCancellationRequested ? Cancellation() : null);

    IThreadPoolWorkItem? ILoopCall.Run() => UserCalls.RunInBatch(this);

    protected override void OnTokenCancelled() => writer.OnTokenCancelled(this);
}
