using System.Diagnostics;
using System.IO.Pipelines;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <content>The read that waits: how it begins, on which thread it is completed, and how it ends.</content>
internal sealed partial class SocketPipeReader
{
    /// <summary>Completes the read that <see cref="Note"/> scheduled, on the calling thread: receives, and runs the reader's user.</summary>
    private void CompleteRead()
    {
        ReadResult result = default;
        Exception? failure = null;
        PendingRead read;
        while (true)
        {
            lock (_gate)
            {
                Debug.Assert(_state == WaitState.Scheduled);
                read = _pendingRead!;
                if (read.IsCancellationRequested)
                {
                    failure = read.Cancellation();
                }
                else if (_error is not null)
                {
                    failure = _error;
                }
                else if (TryBeginReceiveOfTheEnd())
                {
                    goto receive;
                }
                else if (!TryTakeResult(out result))
                {
                    if (TryBeginReceive(intoTail: true))
                    {
                        goto receive;
                    }

                    // The event was about something else, or somebody else is receiving and will schedule again.
                    _state = WaitState.Waiting;
                    if (!read.IsCancellationRequested)
                    {
                        return;
                    }

                    failure = read.Cancellation();
                }

                _state = WaitState.Idle;
                read.NoteEnd();
                _connection.Output.NoteUserCall();
                break;
            }

        receive:
            Receive();
        }

        read.Complete(result, failure);
    }

    LoopCallCost ILoopCall.Cost
    {
        get => _cost == LoopCallCost.Brief && _readsOnPool >= ReadsBeforePool ? LoopCallCost.Awaiting : _cost;
        set => _cost = value;
    }

    IThreadPoolWorkItem? ILoopCall.Run() => UserCalls.RunInBatch(this);

    void IThreadPoolWorkItem.Execute() => CompleteRead();

    /// <summary>
    /// Reads what the loop is to complete, whatever is there already: the server begins a connection on the thread pool, and if its first request ran, and blocked, there,
    /// others could not begin. Nothing is completed before the user has said how he goes on, or he would go on here.
    /// </summary>
    private ValueTask<ReadResult> ReadOnLoop(int minimumSize, CancellationToken cancellationToken)
    {
        ValueTask<ReadResult> wait;
        bool send;
        lock (_gate)
        {
            ThrowIfUnreadable();
            _policy.NoteRead();
            _minimumSize = minimumSize;
            send = _connection.Output.TryBeginAnswer();
            wait = BeginWait(cancellationToken);
            if (_state == WaitState.Waiting)
            {
                _state = WaitState.Unobserved;
            }
        }

        if (send)
        {
            _connection.Output.Send();
        }

        return wait;
    }

    private void LeaveToLoop()
    {
        bool isReady;
        lock (_gate)
        {
            if (_state != WaitState.Unobserved)
            {
                return;
            }

            _state = WaitState.Waiting;

            // Who is receiving at this moment looks whether somebody waits.
            isReady = ((_readiness.IsReadable && !_receiving) || _received.Unexamined > 0 || _ended || _cancelRequested) && TryScheduleWaiter();
        }

        if (isReady && !_connection.Socket.Loop.TryPost(this))
        {
            // The loop is ending.
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
        }
    }

    private ValueTask<ReadResult> BeginWait(CancellationToken cancellationToken)
    {
        // Inside of a delivery: the user has answered, or goes on here when the next input comes.
        _readsOnPool = UserCalls.IsInside || _connection.IsOutbound || !Thread.CurrentThread.IsThreadPoolThread ? 0 : Math.Min(_readsOnPool + 1, ReadsBeforePool);
        if (_pendingRead is not { IsFree: true })
        {
            _pendingRead = new PendingRead(this);
        }

        _state = WaitState.Waiting;
        return _pendingRead.Begin(cancellationToken);
    }

    /// <summary>The token of a read that waits, or waited, was cancelled.</summary>
    internal void OnTokenCancelled(PendingRead read)
    {
        lock (_gate)
        {
            // A late callback of an earlier read's token has no say.
            if (_state is not (WaitState.Waiting or WaitState.Unobserved) || _pendingRead != read || !read.IsCancellationRequested)
            {
                return;
            }

            _state = WaitState.Scheduled;
        }

        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    private bool TryScheduleWaiter()
    {
        if (_state != WaitState.Waiting)
        {
            return false;
        }

        _state = WaitState.Scheduled;
        return true;
    }

    /// <summary>The user asks whether the read has completed, without awaiting it so far.</summary>
    internal void OnStatusAsked()
    {
        if (_state == WaitState.Unobserved)
        {
            // A user who asks again, instead of awaiting the read after the first time, may never await it.
            if (_wasLookedAt)
            {
                LeaveToLoop();
            }

            _wasLookedAt = true;
        }
    }

    /// <summary>The user awaits the read.</summary>
    internal void OnAwaited()
    {
        if (_state == WaitState.Unobserved)
        {
            LeaveToLoop();
        }
    }
}
