using System.IO.Pipelines;
using System.Threading.Tasks.Sources;

namespace Evio.Transport.Pipes;

/// <summary>A read that waits for input: the operation that its caller awaits.</summary>
internal sealed class PendingRead(SocketPipeReader reader) : PendingOperation<ReadResult>
{
    public override ValueTaskSourceStatus GetStatus(short token)
    {
        reader.OnPolled();
        return base.GetStatus(token);
    }

    public override void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
    {
        base.OnCompleted(continuation, state, token, flags);
        reader.OnAwaited();
    }

    protected override void OnTokenCancelled() => reader.OnTokenCancelled(this);
}
