using System.Net.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>The end of a connection: closed in order, closed by an error or a time-out, or detached.</summary>
internal sealed partial class StreamConnection
{
    /// <summary>Closes like <see cref="EvioAction.Close"/>, with a deadline of its own.</summary>
    internal void CloseWithin(TimeSpan deadline)
    {
        Request(State.Closing);
        _closeTimer?.Cancel();
        _closeTimer = Loop.ScheduleInternal(deadline, static connection => ((StreamConnection)connection!).GiveUp(), this);
        EndTurn();
    }

    private void GiveUp() => CloseNow(new TimeoutException("The peer did not take the pending output in time."), reset: true);

    private void CheckIdle()
    {
        if (_state is State.Closed or State.Detached)
        {
            return;
        }

        if (_callbacks > 0)
        {
            // A blocked callback may still be working on its answer.
            NoteActivity();
        }

        var left = _options.IdleTimeout - TimeSpan.FromMilliseconds(Environment.TickCount64 - _lastActivity);
        if (left > TimeSpan.Zero)
        {
            _idleTimer = Loop.ScheduleInternal(left, static connection => ((StreamConnection)connection!).CheckIdle(), this);
        }
        else
        {
            CloseNow(new TimeoutException($"The connection was idle for {_options.IdleTimeout}."), reset: false);
        }
    }

    private void NoteActivity()
    {
        if (_idleTimer is not null)
        {
            _lastActivity = Environment.TickCount64;
        }
    }

    /// <summary>Closes the connection, with or without pending output, and makes the last callback.</summary>
    private void CloseNow(Exception? error, bool reset)
    {
        if (_state is State.Closed or State.Detached)
        {
            return;
        }

        if (IsCallbackBlocked)
        {
            // The callback's thread may be writing to the output.
            CloseAfterCallback(error, reset);
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
    }

    private void CloseAfterCallback(Exception? error, bool reset) => AfterCallback(connection => connection.CloseNow(error, reset));

    private void CompleteDetach()
    {
        if (_owner.Events.Detached is not { } detached)
        {
            CloseNow(null, reset: false);
            return;
        }

        _state = State.Detached;
        End(null);
        Socket socket;
        try
        {
            socket = _channel.Detach();
        }
        catch (SocketException exception)
        {
            // The socket is closed, and was not handed over.
            CallLast(_owner.Events.Closed, exception, static (connection, closed, error) => closed(connection, error));
            return;
        }

        CallDetached(detached, socket);
    }

    private void CallDetached(DetachedCallback detached, Socket socket) =>
        CallLast(detached, null, (connection, detached, _) => detached(connection, socket));

    private void End(Exception? error)
    {
        Volatile.Write(ref _refused, 1);
        _closeTimer?.Cancel();
        _idleTimer?.Cancel();
        _output.Discard(ClosedException(error));
    }

    /// <summary>
    /// Receives and drops what has arrived: unread input would turn the close into a reset, which can overtake the last output (RFC 2525,
    /// 2.17). Bounded to <see cref="MaxReceivesPerTurn"/> buffers.
    /// </summary>
    private void Drain()
    {
        _channel.ShutdownSend();
        for (var i = 0; i < MaxReceivesPerTurn && _channel.Receive(_owner.DrainBuffer).Count > 0; i++)
        {
        }
    }

    internal static InvalidOperationException IsOverException() => new("The connection is closed or detached, and can no longer be written to.");

    private static IOException ClosedException(Exception? reason = null) => new("The connection is closed.", reason);
}
