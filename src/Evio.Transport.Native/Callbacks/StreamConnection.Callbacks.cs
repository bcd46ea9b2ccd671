using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Callbacks;

/// <summary>How a connection's callbacks are made, and what happens when one does not come back.</summary>
/// <remarks>
/// In an adaptive server a callback may cost its thread the loop. The connection is then the <i>late</i> callback's: its thread alone writes to the output, and
/// the loop only takes note of what else happens to the connection (<see cref="AfterCallback"/>). When the callback has returned, the rest of the turn is posted to
/// the loop, which goes on with the connection there. Each step of that may be late in turn: after each, this class asks whether the loop is still the thread's.
/// </remarks>
internal sealed partial class StreamConnection
{
    // How many callbacks about this connection are being made, one inside the other, and on which thread.
    private int _callbacks;
    private int _callbackThread;

    // What waits for a late callback to return, in its order; the loop's.
    private Queue<Action<StreamConnection>>? _afterCallback;

    /// <summary>Whether the caller is in a callback about this connection.</summary>
    private bool IsInCallback => _callbacks > 0 && Volatile.Read(ref _callbackThread) == Environment.CurrentManagedThreadId;

    /// <summary>Whether a callback has lost the loop and not come back. On the loop.</summary>
    private bool IsLate => _callbacks > 0 && Volatile.Read(ref _callbackThread) != Environment.CurrentManagedThreadId;

    /// <summary>Whether nothing more can be sent: output that was obtained before is refused, too.</summary>
    internal bool IsOver => _state is State.Closed or State.Detached;

    /// <summary>Whether the caller may write output, unless the connection is over.</summary>
    internal bool MayBeWritten => IsInCallback || (!Loop.IsAdaptive && Loop.IsCurrent);

    /// <summary>Has something done on the loop when the late callback has returned.</summary>
    private void AfterCallback(Action<StreamConnection> action) => (_afterCallback ??= []).Enqueue(action);

    private void BeginCallback()
    {
        _callbacks++;
        Volatile.Write(ref _callbackThread, Environment.CurrentManagedThreadId);
    }

    /// <summary>Calls <see cref="Events.Data"/>.</summary>
    /// <param name="input">The input.</param>
    /// <param name="buffer">Where it is, if it is in one of the loop's buffers, which is given back.</param>
    /// <returns>As for <see cref="TryCall"/>.</returns>
    private bool TryCallData(ReadOnlySpan<byte> input, byte[]? buffer)
    {
        if (_owner.Events.Data is { } data)
        {
            return TryCall(data, input, buffer, static connection =>
            {
                connection.EndTurn();
                connection.Read();
            });
        }

        GiveBack(buffer);
        return true;
    }

    /// <summary>Calls <see cref="Events.Opened"/>, which there is.</summary>
    /// <returns>As for <see cref="TryCall"/>.</returns>
    private bool TryCallOpened() => TryCall(
        static (connection, _) => ((StreamConnection)connection)._owner.Events.Opened!(connection, ref ((StreamConnection)connection)._options),
        input: default,
        buffer: null,
        static connection => connection.Start());

    /// <summary>Makes a callback, in which the loop may be lost.</summary>
    /// <param name="callback">The callback.</param>
    /// <param name="input">Its input.</param>
    /// <param name="buffer">The loop's buffer that the input is in, if any.</param>
    /// <param name="rest">The rest of the turn.</param>
    /// <returns>
    /// Whether the caller goes on. Otherwise the callback is made elsewhere, or the loop is another thread's, and <paramref name="rest"/> follows on the loop.
    /// </returns>
    private bool TryCall(DataCallback callback, ReadOnlySpan<byte> input, byte[]? buffer, Action<StreamConnection> rest)
    {
        if (Loop.Ownership.IsExhausted)
        {
            CallOnPool(callback, input.ToArray(), rest);
            GiveBack(buffer);
            return false;
        }

        BeginCallback();
        var mayBeLate = Loop.Ownership.TryBeginCall();
        var (action, error) = Call(callback, input);
        if (!Loop.Ownership.TryReturnFromCall(mayBeLate))
        {
            PostReturn(action, error, buffer, rest);
            return false;
        }

        GiveBack(buffer);
        EndCallback(action, error);
        return true;
    }

    private (EvioAction Action, Exception? Error) Call(DataCallback callback, ReadOnlySpan<byte> input)
    {
        try
        {
            return (callback(this, input), null);
        }
        catch (Exception exception)
        {
            return (EvioAction.None, exception);
        }
        finally
        {
            AmbientState.Restore();
        }
    }

    /// <summary>Calls <see cref="Events.PreWrite"/>, in which the loop is kept: the send follows at once.</summary>
    /// <returns>What it threw.</returns>
    private Exception? CallPreWrite(PreWriteCallback preWrite)
    {
        BeginCallback();
        try
        {
            using (LoopHold.Begin())
            using (AmbientState.BeginCallback())
            {
                preWrite(this);
            }

            return null;
        }
        catch (Exception exception)
        {
            return exception;
        }
        finally
        {
            _callbacks--;
        }
    }

    private void GiveBack(byte[]? buffer)
    {
        if (buffer is not null)
        {
            _owner.ReturnInputBuffer(buffer);
        }
    }

    /// <summary>Makes a callback on the thread pool, because the loop must not risk its thread.</summary>
    private void CallOnPool(DataCallback callback, byte[] input, Action<StreamConnection> rest)
    {
        _callbacks++;

        // Nobody's, until it begins.
        Volatile.Write(ref _callbackThread, 0);
        ThreadPool.UnsafeQueueUserWorkItem(
            static state =>
            {
                var (connection, callback, input, rest) = state;
                Volatile.Write(ref connection._callbackThread, Environment.CurrentManagedThreadId);
                var (action, error) = connection.Call(callback, input);
                connection.PostReturn(action, error, buffer: null, rest);
            },
            (this, callback, input, rest),
            preferLocal: false);
    }

    /// <summary>A late callback has returned: the loop goes on with the connection.</summary>
    private void PostReturn(EvioAction action, Exception? error, byte[]? buffer, Action<StreamConnection> rest)
    {
        // Nobody's, so that this thread is not taken for one inside of it.
        Volatile.Write(ref _callbackThread, 0);

        if (!Loop.TryPostWhileEnding(
                static state =>
                {
                    var (connection, action, error, buffer, rest) = ((StreamConnection, EvioAction, Exception?, byte[]?, Action<StreamConnection>))state!;
                    connection.GiveBack(buffer);
                    connection.EndCallback(action, error);
                    connection.Resume(rest);
                },
                (this, action, error, buffer, rest)))
        {
            EndWithoutLoop(error);
        }
    }

    /// <summary>
    /// Does what a late callback has left: the rest of its turn, and then what has waited for its return. When one of these costs the thread the loop, the others wait for
    /// the callback that did it.
    /// </summary>
    private void Resume(Action<StreamConnection>? rest)
    {
        if (Loop.IsCurrent)
        {
            rest?.Invoke(this);
        }

        while (Loop.IsCurrent && _callbacks == 0 && _afterCallback is { Count: > 0 } waiting)
        {
            waiting.Dequeue()(this);
        }
    }

    /// <summary>
    /// The loop has ended while the callback was late, and has closed the socket. The connection is this thread's alone now, which tells the handler of its end.
    /// </summary>
    private void EndWithoutLoop(Exception? error)
    {
        _callbacks = 0;
        Finish(error, reset: true);
        while (_afterCallback is { Count: > 0 } waiting)
        {
            waiting.Dequeue()(this);
        }
    }

    private void EndCallback(EvioAction action, Exception? error)
    {
        _callbacks--;

        // However long it took, the connection was not idle.
        NoteActivity();
        if (error is not null)
        {
            Finish(error, reset: true);
            return;
        }

        switch (action)
        {
            case EvioAction.Detach:
                Request(State.Detaching);
                break;
            case EvioAction.Close:
                Request(State.Closing);
                break;
            case EvioAction.Shutdown:
                _owner.Server.Handle(action);
                break;
        }
    }

    /// <summary>The last callback. What it throws ends nothing more than the connection, which has ended.</summary>
    private void CallLast<TCallback>(TCallback? callback, Exception? error, Func<StreamConnection, TCallback, Exception?, EvioAction> call)
        where TCallback : class
    {
        if (callback is null)
        {
            _owner.Remove(this);
        }
        else if (Loop.Ownership.IsExhausted)
        {
            CallLastOnPool(callback, error, call);
        }
        else if (Loop.Ownership.IsHeld && TryPostLast(callback, error, call))
        {
            // Whatever closed the connection goes on with the loop. The callback, which may lose it, is made when that has come to its end.
        }
        else
        {
            var mayBeLate = Loop.Ownership.TryBeginCall();
            CallAndHandle(callback, error, call);
            if (!Loop.Ownership.TryReturnFromCall(mayBeLate))
            {
                PostRemove();
            }
            else
            {
                _owner.Remove(this);
            }
        }
    }

    // Of its own, so that only what is posted costs the closure.
    private bool TryPostLast<TCallback>(TCallback callback, Exception? error, Func<StreamConnection, TCallback, Exception?, EvioAction> call)
        where TCallback : class => Loop.TryPostWhileEnding(_ => CallLast(callback, error, call), null);

    private void CallLastOnPool<TCallback>(TCallback callback, Exception? error, Func<StreamConnection, TCallback, Exception?, EvioAction> call) =>
        ThreadPool.UnsafeQueueUserWorkItem(
            _ =>
            {
                CallAndHandle(callback, error, call);
                PostRemove();
            },
            null);

    private void CallAndHandle<TCallback>(TCallback callback, Exception? error, Func<StreamConnection, TCallback, Exception?, EvioAction> call)
    {
        using var ambient = AmbientState.BeginCallback();
        try
        {
            _owner.Server.Handle(call(this, callback, error));
        }
        catch (Exception exception)
        {
            _owner.Server.Tell(_owner.Events.CallbackFailed, this, exception);
        }
    }

    /// <summary>The last callback was late and has returned. A loop that has ended keeps no connections.</summary>
    private void PostRemove() => _ = Loop.TryPostWhileEnding(
        static state =>
        {
            var connection = (StreamConnection)state!;
            connection._owner.Remove(connection);
            connection.Resume(null);
        },
        this);
}
