using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;

namespace Evio.Transport;

/// <content>The end of a connection; the table in the remarks of the class says which there are.</content>
internal sealed partial class EvioConnection
{
    internal void OnPeerFin()
    {
        Log.ConnectionReadFin(_logger, this);
        FireConnectionClosed();
    }

    internal void OnReceiveFailed(Exception error) => End(error);

    internal void OnSendFailed(Exception error) => End(error);

    /// <summary>Ends the connection as an abort does, after the application has completed the writer with an error.</summary>
    internal void OnWriterFailed(Exception error)
    {
        // Sends what was flushed before, as an abort does.
        Output.SendAllDeferred();
        End(error);
    }

    /// <summary>Ends the connection gracefully, after all output was sent and the writer is complete. The peer gets FIN.</summary>
    internal void OnOutputFinished()
    {
        var reason = new ConnectionAbortedException("The connection's output was completed gracefully.");
        lock (Gate)
        {
            if (_endReason is not null)
            {
                return;
            }

            _endReason = reason;
        }

        Log.ConnectionWriteFin(_logger, this, reason.Message);
        Socket.ShutdownSend();
        Input.Fail(reason);
        FireConnectionClosed();
        DrainInput();
        Socket.Close();
    }

    /// <inheritdoc/>
    /// <remarks>
    /// Kestrel gives no reason when it merely follows a client that has gone. The peer then gets FIN, not RST, as on the Sockets transport.
    /// </remarks>
    public override void Abort(ConnectionAbortedException? abortReason)
    {
        // Output that was flushed before may still be deferred, a GOAWAY for example. Output that another thread is sending at this moment
        // may get lost.
        Output.SendAllDeferred();
        if (abortReason is null)
        {
            End(new ConnectionAbortedException("The connection was ended by the server."), reset: false);
        }
        else
        {
            End(abortReason);
        }
    }

    void IConnectionLifetimeFeature.Abort() =>
        Abort(new ConnectionAbortedException("The connection was aborted by the application via IConnectionLifetimeFeature.Abort()."));

    private void End(Exception reason) => End(reason, reset: !FinOnError);

    /// <summary>Ends the connection at once, for a reason, unless it has one already. Buffered bytes are discarded.</summary>
    private void End(Exception reason, bool reset)
    {
        lock (Gate)
        {
            if (_endReason is not null)
            {
                return;
            }

            _endReason = reason;
        }

        switch (reason)
        {
            case ConnectionResetException:
                Log.ConnectionReset(_logger, this);
                break;
            case not ConnectionAbortedException:
                Log.ConnectionError(_logger, this, reason);
                break;
        }

        // Before the socket reports an error of its own, so that the pipes report the reason.
        Input.Fail(reason);
        Output.Close();
        if (reset)
        {
            Log.ConnectionWriteRst(_logger, this, reason.Message);
            Socket.Reset();
        }
        else
        {
            Log.ConnectionWriteFin(_logger, this, reason.Message);
            Socket.ShutdownSend();
        }

        FireConnectionClosed();
        Socket.Close();
    }

    /// <summary>Drops input that no caller will read, up to 256 KiB.</summary>
    /// <remarks>
    /// Unread input would turn the close into a reset, which may overtake the last bytes of the output on its way (RFC 2525, 2.17). A peer
    /// that sends more has no claim to be waited for.
    /// </remarks>
    private void DrainInput()
    {
        Span<byte> unread = stackalloc byte[4096];
        for (var i = 0; i < 64 && Socket.Receive(unread).Count > 0; i++)
        {
        }
    }

    /// <summary>
    /// Completes both pipe ends, and waits until the output has left (or the connection was aborted) and everything is closed.
    /// </summary>
    public override async ValueTask DisposeAsync()
    {
        Input.Complete();
        Output.Complete();
        var waiting = new TaskCompletionSource();
        waiting = Interlocked.CompareExchange(ref _ended, waiting, null) ?? waiting;
        if (waiting != HasEnded)
        {
            await waiting.Task.ConfigureAwait(false);
        }

        await base.DisposeAsync().ConfigureAwait(false);
    }

    private void FireConnectionClosed()
    {
        if (Interlocked.Exchange(ref _closedFired, 1) == 0)
        {
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
        }
    }

    void IThreadPoolWorkItem.Execute()
    {
        try
        {
            _connectionClosed.Cancel();
        }
        catch (Exception exception)
        {
            if (_owner.ClosedCallbackFailures.TryPass())
            {
                Log.ConnectionClosedCallbackFailed(_logger, this, exception);
            }
        }

        SignalEnd()?.SetResult();
    }

    /// <summary>
    /// Expects one more end: a send or a receive is under way at the socket's close, and uses a block until <see cref="SignalEndOnPool"/>.
    /// Before the close is counted.
    /// </summary>
    internal void AddPendingEnd() => Interlocked.Increment(ref _endsToCome);

    /// <summary>
    /// Counts one of the ends to come, in the middle of something else: a dispose that waits continues on the thread pool.
    /// </summary>
    internal void SignalEndOnPool()
    {
        if (SignalEnd() is { } waiting)
        {
            ThreadPool.UnsafeQueueUserWorkItem(static waiting => waiting.SetResult(), waiting, preferLocal: false);
        }
    }

    /// <summary>Counts one of the ends to come.</summary>
    /// <returns>The dispose that waits for them, if this was the last one and a dispose waits.</returns>
    private TaskCompletionSource? SignalEnd()
    {
        if (Interlocked.Decrement(ref _endsToCome) > 0)
        {
            return null;
        }

        bool isInUse;
        lock (Gate)
        {
            isInUse = _isInUseAfterEnd = !Input.IsComplete || !Output.IsComplete;
        }

        _owner.Remove(this, isInUse);
        return Interlocked.Exchange(ref _ended, HasEnded);
    }

    /// <summary>Notes that the application has completed one pipe end. Under the gate.</summary>
    /// <returns>Whether the caller has to call <see cref="OnReleased"/> after leaving the gate.</returns>
    internal bool TryRelease()
    {
        if (!_isInUseAfterEnd || !Input.IsComplete || !Output.IsComplete)
        {
            return false;
        }

        _isInUseAfterEnd = false;
        return true;
    }

    /// <summary>Notes that nothing uses a block any more, after the connection has ended.</summary>
    internal void OnReleased() => _owner.OnReleased();
}
