using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Callbacks;

/// <summary>The callbacks of a connection, and what happens when one does not return.</summary>
/// <remarks>
/// In an adaptive server a thread can lose the loop in a callback. Then the callback is <i>blocked</i>: only its thread writes to the
/// output, and the loop queues everything else that happens to the connection (<see cref="AfterCallback"/>). When the callback returns, its
/// thread posts the rest of its work to the loop, which goes on with the connection. Each step of that can block, too, so this class checks
/// after each step whether the thread still owns the loop.
/// </remarks>
internal sealed partial class StreamConnection
{
    // The number of nested callbacks of this connection that run, and their thread.
    private int _callbacks;
    private int _callbackThread;

    // What waits for a blocked callback to return, in order. The loop's.
    private Queue<Action<StreamConnection>>? _afterCallback;

    /// <summary>Whether the caller is in a callback of this connection.</summary>
    private bool IsInCallback => _callbacks > 0 && Volatile.Read(ref _callbackThread) == Environment.CurrentManagedThreadId;

    /// <summary>Whether a callback has lost the loop and not returned. On the loop.</summary>
    private bool IsCallbackBlocked => _callbacks > 0 && Volatile.Read(ref _callbackThread) != Environment.CurrentManagedThreadId;

    /// <summary>Whether the connection is closed or detached. An output writer that was obtained before is refused, too.</summary>
    internal bool IsOver => _state is State.Closed or State.Detached;

    /// <summary>Whether the caller may write output, unless the connection is over.</summary>
    internal bool MayBeWritten => IsInCallback || (!Loop.IsAdaptive && Loop.IsCurrent);

    /// <summary>Queues an action for the loop, after the blocked callback.</summary>
    private void AfterCallback(Action<StreamConnection> action) => (_afterCallback ??= []).Enqueue(action);

    private void BeginCallback()
    {
        _callbacks++;
        Volatile.Write(ref _callbackThread, Environment.CurrentManagedThreadId);
    }

    /// <summary>Calls <see cref="Events.Data"/>.</summary>
    /// <param name="input">The input.</param>
    /// <param name="buffer">The loop's buffer that holds the input, which is returned; <see langword="null"/> if none does.</param>
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

    /// <summary>Calls <see cref="Events.Opened"/>, which must be set.</summary>
    /// <returns>As for <see cref="TryCall"/>.</returns>
    private bool TryCallOpened() => TryCall(
        static (connection, _) => ((StreamConnection)connection)._owner.Events.Opened!(connection, ref ((StreamConnection)connection)._options),
        input: default,
        buffer: null,
        static connection => connection.Start());

    /// <summary>Makes a callback, in which the loop can be lost.</summary>
    /// <param name="callback">The callback.</param>
    /// <param name="input">Its input.</param>
    /// <param name="buffer">The loop's buffer that holds the input; <see langword="null"/> if none does.</param>
    /// <param name="rest">What follows the callback, on the loop, if the caller does not go on.</param>
    /// <returns>
    /// Whether the caller goes on. Otherwise the callback runs on another thread, or the loop is another thread's, and
    /// <paramref name="rest"/> follows.
    /// </returns>
    private bool TryCall(DataCallback callback, ReadOnlySpan<byte> input, byte[]? buffer, Action<StreamConnection> rest)
    {
        if (Loop.Ownership.IsSaturated)
        {
            CallOnPool(callback, input.ToArray(), rest);
            GiveBack(buffer);
            return false;
        }

        BeginCallback();
        var begun = Loop.Ownership.TryBeginCall();
        var (action, error) = Call(callback, input);
        if (!Loop.Ownership.TryReturnFromCall(begun))
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

    /// <summary>Calls <see cref="Events.PreWrite"/>, in which the loop cannot be lost, because the send follows at once.</summary>
    /// <returns>The exception of the callback, or <see langword="null"/>.</returns>
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

    /// <summary>Makes a callback on the thread pool, because the loop must keep its thread.</summary>
    private void CallOnPool(DataCallback callback, byte[] input, Action<StreamConnection> rest)
    {
        _callbacks++;

        // No thread is in the callback before it begins.
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

    /// <summary>Has the loop go on with the connection after a blocked callback has returned.</summary>
    private void PostReturn(EvioAction action, Exception? error, byte[]? buffer, Action<StreamConnection> rest)
    {
        // Cleared, so that this thread does not count as inside of the callback any more.
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
    /// Runs what a blocked callback has held up: the rest of its work, then what was queued. When a callback in one of these blocks, the
    /// others wait for that one.
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
    /// Ends a connection whose loop ended, and closed the socket, while its callback was blocked. No other thread uses the connection then.
    /// </summary>
    private void EndWithoutLoop(Exception? error)
    {
        _callbacks = 0;
        CloseNow(error, reset: true);
        while (_afterCallback is { Count: > 0 } waiting)
        {
            waiting.Dequeue()(this);
        }
    }

    private void EndCallback(EvioAction action, Exception? error)
    {
        _callbacks--;

        // However long the callback took, the connection was not idle.
        NoteActivity();
        if (error is not null)
        {
            CloseNow(error, reset: true);
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

    /// <summary>Makes the last callback. Its exception ends nothing, since the connection has ended.</summary>
    private void CallLast<TCallback>(TCallback? callback, Exception? error, Func<StreamConnection, TCallback, Exception?, EvioAction> call)
        where TCallback : class
    {
        if (callback is null)
        {
            _owner.Remove(this);
        }
        else if (Loop.Ownership.IsSaturated)
        {
            CallLastOnPool(callback, error, call);
        }
        else if (Loop.Ownership.IsHeld && TryPostLast(callback, error, call))
        {
            // The code that closed the connection keeps the loop. The callback, in which the loop can be lost, comes after that code.
        }
        else
        {
            var begun = Loop.Ownership.TryBeginCall();
            CallAndHandle(callback, error, call);
            if (!Loop.Ownership.TryReturnFromCall(begun))
            {
                PostRemove();
            }
            else
            {
                _owner.Remove(this);
            }
        }
    }

    // A method of its own, so that the closure is allocated only here.
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

    /// <summary>
    /// Has the loop remove the connection after its last callback was blocked and has returned. A loop that has ended keeps no connections.
    /// </summary>
    private void PostRemove() => _ = Loop.TryPostWhileEnding(
        static state =>
        {
            var connection = (StreamConnection)state!;
            connection._owner.Remove(connection);
            connection.Resume(null);
        },
        this);
}
