namespace Evio.Transport.Native.Callbacks;

/// <content>What any thread may call, and how it runs on the loop.</content>
internal sealed partial class StreamConnection
{
    public override bool Wake()
    {
        if (Volatile.Read(ref _refused) != 0)
        {
            return false;
        }

        // One posted call serves all wakes that come before it runs.
        if (Interlocked.Increment(ref _wakes) > 1 || Loop.TryPostInternal(static connection => ((StreamConnection)connection!).RunWakes(), this))
        {
            return true;
        }

        // The loop is ending. Later wakes must not rely on the call that was not posted.
        Volatile.Write(ref _refused, 1);
        return false;
    }

    public override Task SendAsync(ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default)
    {
        if (cancellationToken.IsCancellationRequested)
        {
            return Task.FromCanceled(cancellationToken);
        }

        var send = new PendingSend(data);
        if (Volatile.Read(ref _refused) != 0 || !Loop.TryPostInternal(
                static state =>
                {
                    var (connection, send) = ((StreamConnection, PendingSend))state!;
                    connection.SendPosted(send);
                },
                (this, send)))
        {
            send.SetException(ClosedException());
        }

        return cancellationToken.CanBeCanceled ? WithdrawWhenCancelledAsync(send, cancellationToken) : send.Task;
    }

    public override void ShutdownSend() => RunOnLoop(static connection =>
    {
        connection._shutdownRequested = true;
        connection.EndTurn();
    });

    public override void Close()
    {
        if (IsInCallback)
        {
            // At once, even if the callback has lost its loop.
            Volatile.Write(ref _refused, 1);
        }

        RunOnLoop(static connection =>
        {
            connection.Request(State.Closing);
            connection.EndTurn();
        });
    }

    private void RunWakes()
    {
        if (IsCallbackBlocked)
        {
            AfterCallback(static connection => connection.RunWakes());
            return;
        }

        var wakes = Interlocked.Exchange(ref _wakes, 0);
        for (var i = 0; wakes > 0 && _state == State.Open; i++, wakes--)
        {
            if (i == MaxWakesPerTurn)
            {
                PostWakes(wakes);
                break;
            }

            if (!TryCallData(default, null))
            {
                // The other wakes follow this one.
                PostWakes(wakes - 1);
                return;
            }
        }

        EndTurn();
    }

    /// <summary>Posts wakes that were counted already, unless a posted call for later wakes serves them.</summary>
    private void PostWakes(int wakes)
    {
        if (wakes > 0 && Interlocked.Add(ref _wakes, wakes) == wakes)
        {
            _ = Loop.TryPostInternal(static connection => ((StreamConnection)connection!).RunWakes(), this);
        }
    }

    private void SendPosted(PendingSend send)
    {
        if (IsCallbackBlocked)
        {
            SendAfterCallback(send);
            return;
        }

        if (!send.TryClaim())
        {
            return;
        }

        if (_state is not State.Open || _shutdownRequested)
        {
            send.SetException(ClosedException());
            return;
        }

        _output.Append(send);
        EndTurn();
    }

    // A method of its own, so that the closure is allocated only here.
    private void SendAfterCallback(PendingSend send) => AfterCallback(connection => connection.SendPosted(send));

    private async Task WithdrawWhenCancelledAsync(PendingSend send, CancellationToken cancellationToken)
    {
        using (cancellationToken.UnsafeRegister(
            static (state, cancellationToken) =>
            {
                var (connection, send) = ((StreamConnection, PendingSend))state!;
                if (send.TryClaim())
                {
                    // The loop has not come to it: a callback may keep the loop, or be blocked, and may even wait for this.
                    send.TrySetCanceled(cancellationToken);
                    return;
                }

                // Posted even on the loop itself, which may be in the middle of a send.
                _ = connection.Loop.TryPostInternal(_ => connection.Withdraw(send, cancellationToken), null);
            },
            (this, send)))
        {
            await send.Task.ConfigureAwait(false);
        }
    }

    private void Withdraw(PendingSend send, CancellationToken cancellationToken)
    {
        if (IsCallbackBlocked)
        {
            AfterCallback(connection => connection.Withdraw(send, cancellationToken));
        }
        else if (_output.TryWithdraw(send))
        {
            send.TrySetCanceled(cancellationToken);

            // Less output is pending now, so reading may resume, or a close may complete.
            EndTurn();
        }
    }

    private void RunOnLoop(Action<StreamConnection> action)
    {
        using var owner = Loop.Ownership.Enter();
        if (owner.IsOwner)
        {
            action(this);
        }
        else
        {
            // Not posted if the loop has ended, which has closed its connections.
            _ = Loop.TryPostInternal(
                static state =>
                {
                    var (connection, action) = ((StreamConnection, Action<StreamConnection>))state!;
                    action(connection);
                },
                (this, action));
        }
    }
}
