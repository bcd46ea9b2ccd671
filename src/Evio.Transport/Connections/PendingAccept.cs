using Evio.Transport.Native;
using Evio.Transport.Pipes;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport;

/// <summary>An accept that waits for a connection: what the server awaits, and the call that hands the connection over.</summary>
internal sealed class PendingAccept(EvioConnectionListener listener) : PendingOperation<ConnectionContext?>, ILoopCall
{
    private EvioConnection? _result;
    private Exception? _failure;

    /// <summary>Whatever it costs, new connections do not wait for a processor behind handlers.</summary>
    LoopCallCost ILoopCall.Cost
    {
        get => LoopCallCost.Brief;
        set
        {
        }
    }

    /// <summary>Sets what the server will be told, by one of the calls below. Under the listener's lock, by whoever ended the wait.</summary>
    internal void End(EvioConnection? result, Exception? failure)
    {
        (_result, _failure) = (result, failure);
        NoteEnd();
    }

    /// <summary>Hands over the connection, <see langword="null"/>, the end, or the failure.</summary>
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
