using System.IO.Pipelines;
using System.Threading.Tasks.Sources;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// The flush of a writer that waits for room: what its user awaits, and the call that tells him how it has ended. One after the other; a connection whose output
/// never waits has none.
/// </summary>
internal sealed class PendingFlush(SocketPipeWriter writer) : IValueTaskSource<FlushResult>, ILoopCall
{
    private ManualResetValueTaskSourceCore<FlushResult> _wait;
    private FlushResult _result;
    private CancellationToken _token;
    private CancellationTokenRegistration _tokenRegistration;
    private LoopCallCost _cost;

    /// <summary>Whether the token of the flush was cancelled, so that it fails whatever its result is.</summary>
    internal bool IsCancellationRequested => _token.IsCancellationRequested;

    /// <summary>In the middle of a response nobody waits for a processor: what computes there is taken for one that blocks.</summary>
    LoopCallCost ILoopCall.Cost
    {
        get => _cost;
        set => _cost = value == LoopCallCost.Brief ? LoopCallCost.Brief : LoopCallCost.Blocking;
    }

    /// <summary>Under the writer's gate.</summary>
    internal ValueTask<FlushResult> Begin(CancellationToken cancellationToken)
    {
        _wait.Reset();
        _token = cancellationToken;
        if (cancellationToken.CanBeCanceled)
        {
            // Runs at once, on this thread and inside the gate (which is re-entrant), if the token was cancelled meanwhile.
            _tokenRegistration = cancellationToken.UnsafeRegister(static writer => ((SocketPipeWriter)writer!).OnTokenCancelled(), writer);
        }

        return new ValueTask<FlushResult>(this, _wait.Version);
    }

    /// <summary>Sets what the user will be told, by one of the calls below. Under the writer's gate, by whoever ended the wait.</summary>
    internal void End(bool isCanceled, bool isCompleted) => _result = new FlushResult(isCanceled, isCompleted);

    /// <summary>Tells the user.</summary>
    void IThreadPoolWorkItem.Execute()
    {
        // Outside the gate: the callback of the registration takes it.
        _tokenRegistration.Unregister();
        UserCalls.Complete(ref _wait, _result, IsCancellationRequested ? new OperationCanceledException(_token) : null);
    }

    void ILoopCall.Run() => ((IThreadPoolWorkItem)this).Execute();

    void ILoopCall.OnOverdue()
    {
        // A flush that goes on is no delivery of input: nothing that it writes is deferred.
    }

    FlushResult IValueTaskSource<FlushResult>.GetResult(short token) => _wait.GetResult(token);

    ValueTaskSourceStatus IValueTaskSource<FlushResult>.GetStatus(short token) => _wait.GetStatus(token);

    void IValueTaskSource<FlushResult>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _wait.OnCompleted(continuation, state, token, flags);
}
