using System.Net.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>How a connection ends: closed in order, closed by an error or for want of time, detached.</summary>
internal sealed partial class StreamConnection
{
    /// <summary>Closes like <see cref="EvioAction.Close"/>, but with a time limit of its own.</summary>
    internal void CloseWithin(TimeSpan deadline)
    {
        Request(State.Closing);
        _closeTimer?.Cancel();
        _closeTimer = Loop.Schedule(deadline, static connection => ((StreamConnection)connection!).GiveUp(), this);
        EndTurn();
    }

    private void GiveUp() => Finish(new TimeoutException("The peer did not take the pending output in time."), reset: true);

    private void CheckIdle()
    {
        if (_state is State.Closed or State.Detached)
        {
            return;
        }

        var left = _options.IdleTimeout - TimeSpan.FromMilliseconds(Environment.TickCount64 - _lastActivity);
        if (left > TimeSpan.Zero)
        {
            _idleTimer = Loop.Schedule(left, static connection => ((StreamConnection)connection!).CheckIdle(), this);
        }
        else
        {
            Finish(new TimeoutException($"The connection was idle for {_options.IdleTimeout}."), reset: false);
        }
    }

    private void NoteActivity()
    {
        if (_idleTimer is not null)
        {
            _lastActivity = Environment.TickCount64;
        }
    }

    /// <summary>Closes the connection, whatever is pending, and tells the handler.</summary>
    private void Finish(Exception? error, bool reset)
    {
        if (_state is State.Closed or State.Detached)
        {
            return;
        }

        _state = State.Closed;
        End(error);
        if (reset)
        {
            _channel.Reset();
        }
        else
        {
            Drain();
        }

        _channel.Close();
        CallLast(_owner.Events.Closed, error, static (connection, closed, error) => closed(connection, error));
        _owner.Remove(this);
    }

    private void Leave()
    {
        if (_owner.Events.Detached is not { } detached)
        {
            Finish(null, reset: false);
            return;
        }

        _state = State.Detached;
        End(null);
        try
        {
            var socket = _channel.Detach();
            CallLast(detached, null, (connection, detached, _) => detached(connection, socket));
        }
        catch (SocketException exception)
        {
            // It is closed, and nobody else's yet.
            CallLast(_owner.Events.Closed, exception, static (connection, closed, error) => closed(connection, error));
        }

        _owner.Remove(this);
    }

    private void End(Exception? error)
    {
        Volatile.Write(ref _refused, 1);
        _closeTimer?.Cancel();
        _idleTimer?.Cancel();
        _output.Discard(ClosedException(error));
    }

    /// <summary>The last callback. It has no connection left to blame, so what it throws stops the server.</summary>
    private void CallLast<TCallback>(TCallback? callback, Exception? error, Func<StreamConnection, TCallback, Exception?, EvioAction> call)
        where TCallback : class
    {
        if (callback is null)
        {
            return;
        }

        try
        {
            _owner.Server.Handle(call(this, callback, error));
        }
        catch (Exception exception)
        {
            _owner.Server.Fail(exception);
        }
    }

    /// <summary>
    /// Unread input would turn the close into a reset, which may overtake the last output on its way (RFC 2525, 2.17). It gets a moment, no more.
    /// </summary>
    private void Drain()
    {
        _channel.ShutdownSend();
        for (var i = 0; i < MaxReceivesPerTurn && _channel.Receive(_owner.DrainBuffer).Count > 0; i++)
        {
        }
    }

    private static IOException ClosedException(Exception? reason = null) => new("The connection is closed.", reason);
}
