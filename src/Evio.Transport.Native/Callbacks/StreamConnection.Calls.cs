namespace Evio.Transport.Native.Callbacks;

/// <content>Calls from other threads, once they have come to the loop.</content>
internal sealed partial class StreamConnection
{
    private void RunWakes()
    {
        if (IsLate)
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
                // The others' turn comes after this one.
                PostWakes(wakes - 1);
                return;
            }
        }

        EndTurn();
    }

    /// <summary>Has wakes that were counted already called later, unless a call for later ones is on its way already.</summary>
    private void PostWakes(int wakes)
    {
        if (wakes > 0 && Interlocked.Add(ref _wakes, wakes) == wakes)
        {
            _ = Loop.TryPostInternal(static connection => ((StreamConnection)connection!).RunWakes(), this);
        }
    }

    private void SendPosted(ReadOnlyMemory<byte> data, TaskCompletionSource completion)
    {
        if (IsLate)
        {
            SendAfterCallback(data, completion);
            return;
        }

        if (_state is not State.Open || _shutdownRequested)
        {
            completion.SetException(ClosedException());
            return;
        }

        _output.Append(data, completion);
        EndTurn();
    }

    // Of its own, so that only what waits costs the closure.
    private void SendAfterCallback(ReadOnlyMemory<byte> data, TaskCompletionSource completion) =>
        AfterCallback(connection => connection.SendPosted(data, completion));

    private void RunOnLoop(Action<StreamConnection> action)
    {
        using var owner = Loop.Ownership.Enter();
        if (owner.IsOwner)
        {
            action(this);
        }
        else
        {
            // A loop that has ended has closed its connections.
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
