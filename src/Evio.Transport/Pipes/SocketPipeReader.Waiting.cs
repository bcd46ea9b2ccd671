using System.Diagnostics;
using System.IO.Pipelines;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <content>The read that waits: how it begins, on which thread it is completed, and how it ends.</content>
internal sealed partial class SocketPipeReader
{
    /// <summary>
    /// Completes the read that <see cref="Note"/> has scheduled, on the calling thread: receives, and runs the code that awaits the read.
    /// </summary>
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
                else if (TryBeginFinalReceive())
                {
                    goto receive;
                }
                else if (!TryTakeResult(out result))
                {
                    if (TryBeginReceive(intoTail: true))
                    {
                        goto receive;
                    }

                    // The event was about something else, or another thread is receiving and will schedule the read again.
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

    /// <summary>Begins a read that the loop completes, even if input is there already.</summary>
    /// <remarks>
    /// The server begins a connection on the thread pool. If the first request ran there and blocked, other connections could not begin.
    /// The read is completed only after the caller has registered a continuation. Otherwise the continuation would run on this thread.
    /// </remarks>
    private ValueTask<ReadResult> ReadOnLoop(int minimumSize, CancellationToken cancellationToken)
    {
        ValueTask<ReadResult> wait;
        bool send;
        lock (_gate)
        {
            ThrowIfUnreadable();
            _policy.NoteRead();
            _minimumSize = minimumSize;
            send = _connection.Output.TryBeginFlushBeforeRead();
            wait = BeginWait(cancellationToken);
            if (_state == WaitState.Waiting)
            {
                _state = WaitState.NotAwaited;
            }
        }

        if (send)
        {
            _connection.Output.Send();
        }

        return wait;
    }

    private void HandToLoop()
    {
        bool isReady;
        lock (_gate)
        {
            if (_state != WaitState.NotAwaited)
            {
                return;
            }

            _state = WaitState.Waiting;

            // If a receive is in progress, the receiving thread checks for a waiting read when it finishes.
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
        // A read that begins inside of a completion is not counted: its caller has answered, or continues here when the next input comes.
        _readsOnPool = UserCalls.IsInside || _connection.IsOutbound || !Thread.CurrentThread.IsThreadPoolThread ? 0 : Math.Min(_readsOnPool + 1, ReadsBeforePool);
        if (_pendingRead is not { IsFree: true })
        {
            _pendingRead = new PendingRead(this);
        }

        _state = WaitState.Waiting;
        return _pendingRead.Begin(cancellationToken);
    }

    /// <summary>The token of a read that waits, or has waited, was cancelled.</summary>
    internal void OnTokenCancelled(PendingRead read)
    {
        lock (_gate)
        {
            // A delayed callback of an earlier read's token has no effect.
            if (_state is not (WaitState.Waiting or WaitState.NotAwaited) || _pendingRead != read || !read.IsCancellationRequested)
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

    /// <summary>The caller asks whether the read has completed, without having awaited it so far.</summary>
    internal void OnPolled()
    {
        if (_state == WaitState.NotAwaited)
        {
            // A caller that asks again, instead of awaiting the read after the first time, may never await it.
            if (_wasPolled)
            {
                HandToLoop();
            }

            _wasPolled = true;
        }
    }

    /// <summary>The caller awaits the read.</summary>
    internal void OnAwaited()
    {
        if (_state == WaitState.NotAwaited)
        {
            HandToLoop();
        }
    }
}
