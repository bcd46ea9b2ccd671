using System.Net.Sockets;
using System.Runtime.CompilerServices;

namespace Evio.Transport.Native.Managed;

/// <content>How operations of the BCL's socket become events.</content>
internal sealed partial class ManagedStreamSocket
{
    private void AwaitInput()
    {
        if (_awaitsInput || _handler is null)
        {
            return;
        }

        _awaitsInput = true;
        _pendingReceive = _socket.ReceiveAsync(Memory<byte>.Empty, SocketFlags.None, _detached.Token).ConfigureAwait(false).GetAwaiter();
        if (_pendingReceive.IsCompleted)
        {
            OnReceivable();
        }
        else
        {
            _pendingReceive.UnsafeOnCompleted(_onReceivable);
        }
    }

    private void AwaitRoom(byte next)
    {
        _awaitsRoom = true;
        _probe ??= new byte[1];
        _probe[0] = next;
        _pendingSend = _socket.SendAsync(_probe, SocketFlags.None, CancellationToken.None).ConfigureAwait(false).GetAwaiter();
        if (_pendingSend.IsCompleted)
        {
            OnProbeSent();
        }
        else
        {
            _pendingSend.UnsafeOnCompleted(_onProbeSent);
        }
    }

    /// <summary>The pending receive has ended. On any thread.</summary>
    private void OnReceivable() => Complete(ref _pendingReceive, ref _receiveError, ReadyEvents.Readable);

    /// <summary>The pending send has ended. On any thread.</summary>
    private void OnProbeSent() => Complete(ref _pendingSend, ref _sendError, ReadyEvents.Writable);

    private void Complete(ref ConfiguredValueTaskAwaitable<int>.ConfiguredValueTaskAwaiter operation, ref SocketError error, ReadyEvents events)
    {
        if (Volatile.Read(ref _closeRequested) != 0)
        {
            // The close has ended the operation, most likely, and its exception is of no use.
            return;
        }

        try
        {
            _ = operation.GetResult();
        }
        catch (SocketException exception)
        {
            error = exception.SocketErrorCode;
            events |= ReadyEvents.Error;
        }
        catch (OperationCanceledException)
        {
            // Detached since the check above.
            return;
        }

        Post(events);
    }

    private void Post(ReadyEvents events)
    {
        if (Interlocked.Or(ref _events, (int)events) == 0)
        {
            // A loop that has ended has closed its connections.
            _ = Loop.TryPostInternal(static socket => ((ManagedStreamSocket)socket!).Raise(), this);
        }
    }

    private void Raise()
    {
        var events = (ReadyEvents)Interlocked.Exchange(ref _events, 0);
        _awaitsInput &= (events & ReadyEvents.Readable) == 0;
        _awaitsRoom &= (events & ReadyEvents.Writable) == 0;
        if (!_ended)
        {
            Loop.Raise(_token, events);
        }
    }
}
