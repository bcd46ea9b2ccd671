using Evio.Transport.Native;
using Evio.Transport.Pipes;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport;

/// <summary>An accept that waits for a connection: the operation that the server awaits, and the loop call that completes it.</summary>
internal sealed class PendingAccept(EvioConnectionListener listener) : PendingOperation<ConnectionContext?>, ILoopCall
{
    private EvioConnection? _result;
    private Exception? _failure;

    /// <summary>Always small, whatever the call costs, so that new connections do not wait for a processor behind handlers.</summary>
    LoopCallCost ILoopCall.Cost
    {
        get => LoopCallCost.Brief;
        set
        {
        }
    }

    /// <summary>
    /// Sets the result, which one of the calls below delivers. Under the listener's lock, by the code that has ended the wait.
    /// </summary>
    internal void End(EvioConnection? result, Exception? failure)
    {
        (_result, _failure) = (result, failure);
        NoteEnd();
    }

    /// <summary>Completes the accept: with the connection, with <see langword="null"/> at the end, or with the failure.</summary>
    public void Execute()
    {
        var (result, failure) = (_result, _failure);
        _result = null;
        Complete(result, failure);
    }

    IThreadPoolWorkItem? ILoopCall.Run()
    {
        Execute();
        return null;
    }

    protected override void OnTokenCancelled() => listener.OnTokenCancelled(this);
}
