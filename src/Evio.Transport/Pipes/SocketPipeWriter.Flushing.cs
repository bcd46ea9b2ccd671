using System.Diagnostics.CodeAnalysis;
using System.IO.Pipelines;

namespace Evio.Transport.Pipes;

/// <content>Flushing, on the writing thread and under the gate but where it says otherwise, and flushes that wait.</content>
internal sealed partial class SocketPipeWriter
{
    /// <summary>Makes what was written the sender's. No flush waits.</summary>
    /// <param name="sends">Whether the caller now owns the sending side.</param>
    /// <param name="next">What else it has to do for the flush. For both there is <see cref="GoOnFlushing"/>, to be called after leaving the gate.</param>
    /// <param name="cancellationToken">The flush's.</param>
    private ValueTask<FlushResult> BeginFlush(out bool sends, out DeferredFlush.Preparation next, CancellationToken cancellationToken)
    {
        Commit();
        sends = !TryDefer(out next) && TryBeginSend();
        return sends ? default : FinishFlush(cancellationToken);
    }

    /// <summary>Does what <see cref="BeginFlush"/> says, out of the gate.</summary>
    private ValueTask<FlushResult> GoOnFlushing(
        ValueTask<FlushResult> flush, bool sends, DeferredFlush.Preparation next, CancellationToken cancellationToken)
    {
        if (!sends)
        {
            Defer(next);
            return flush;
        }

        Send();
        lock (_gate)
        {
            return FinishFlush(cancellationToken);
        }
    }

    private void ThrowIfCompleted()
    {
        if (_completed)
        {
            throw new InvalidOperationException("Writing is not allowed after the writer was completed.");
        }
    }

    private void ThrowIfWaiting()
    {
        if (_waiting)
        {
            throw new InvalidOperationException("Concurrent flushes are not supported.");
        }
    }

    /// <summary>Goes on with the block that the last flush has left, unless the sender has given it back.</summary>
    private void ReclaimTail()
    {
        if (_tail is null && Volatile.Read(ref _parkedTail) is not null)
        {
            _tail = Interlocked.Exchange(ref _parkedTail, null);
        }
    }

    /// <summary>Takes the block that the last flush has left from the writer, unless he has come back to it. Under the gate.</summary>
    private bool TryTakeParkedTail()
    {
        // Looked at first: most sends find none.
        if (_parkedTail is null || Interlocked.Exchange(ref _parkedTail, null) is null)
        {
            return false;
        }

        _shared = null;
        return true;
    }

    /// <summary>Copies a write into blocks of its own. Outside of the gate.</summary>
    private (BufferSegment? First, BufferSegment? Last) Copy(ReadOnlySpan<byte> source)
    {
        BufferSegment? first = null;
        BufferSegment? last = null;
        try
        {
            while (!source.IsEmpty)
            {
                var block = _blocks.Open(atLeast: 0, expected: Math.Min(source.Length, MaxBlock));
                last?.Append(block);
                first ??= block;
                last = block;
                var count = Math.Min(source.Length, block.Free.Length);
                source[..count].CopyTo(block.Free.Span);
                block.Fill(count);
                source = source[count..];
            }
        }
        catch
        {
            CloseAll(first);
            throw;
        }

        return (first, last);
    }

    private void CloseAll(BufferSegment? first)
    {
        while (first is not null)
        {
            var next = first.NextSegment;
            _blocks.Close(first);
            first = next;
        }
    }

    /// <summary>Adds blocks, one behind the other, to those that were opened since the last flush. By the writing thread, which has reclaimed the tail.</summary>
    [MemberNotNull(nameof(_tail))]
    private void Link(BufferSegment first, BufferSegment last)
    {
        if (_unlinked is null)
        {
            _unlinked = first;
        }
        else
        {
            _tail!.Append(first);
        }

        _tail = last;
    }

    /// <summary>Makes all that was written the sender's; the block in use is shared with it.</summary>
    private void Commit()
    {
        ReclaimTail();
        if (_unlinked is not null)
        {
            if (_head is null)
            {
                _head = _unlinked;
            }
            else
            {
                _last!.Append(_unlinked);
            }

            _unlinked = null;
            _last = _tail;
        }

        _pending += _unflushed;
        _lastFlushed = _unflushed;
        _unflushed = 0;
        _shared = _tail;
        if (_closed)
        {
            DiscardFlushed();
        }
        else if (!_sending)
        {
            // The block that was shared before, if another one has taken its place.
            ReleaseSent(0);
        }
    }

    /// <summary>
    /// After a flush: an idle connection holds no block, and one with output that waits goes on with the block in use, so that a peer that does not read has no
    /// block for each little flush. It is not taken from under a user who asked for memory before the flush and advances after it, which Pipe permits.
    /// </summary>
    private void ParkTail()
    {
        // A write may have come in between, since a flush sends outside of the gate.
        if (_handedOut || _unlinked is not null || _unflushed > 0)
        {
            return;
        }

        if (_pending == 0 || _closed)
        {
            Detach();
        }
        else if (_tail is not null)
        {
            _parkedTail = _tail;
            _tail = null;
        }
    }

    /// <summary>Leaves the block in use to the sender, which gives it back. The next write opens a new one.</summary>
    private void Detach()
    {
        _tail = null;
        _shared = null;
        if (_closed)
        {
            DiscardFlushed();
        }
        else if (!_sending)
        {
            ReleaseSent(0);
        }
    }

    /// <summary>Whether the flush is deferred.</summary>
    /// <param name="next">What <see cref="Defer"/> has to do then, after leaving the gate.</param>
    private bool TryDefer(out DeferredFlush.Preparation next)
    {
        next = DeferredFlush.Preparation.None;
        if (_pending == 0 || _pending >= Math.Min(DeferredFlush.Limit, _pauseAt) || _sending || _blocked || _closed)
        {
            return false;
        }

        // A client flushes once for a request, and may wait for the answer on this very thread. A loop that runs no user code, or a thread of the user's, would only hand over
        // to the pool what it can do itself.
        var isInCall = UserCalls.IsInside;
        return !_connection.IsOutbound && (isInCall || Thread.CurrentThread.IsThreadPoolThread) &&
            (_deferred ??= new DeferredFlush(this)).TryJoin(Environment.CurrentManagedThreadId, isInCall, out next);
    }

    private void Defer(DeferredFlush.Preparation next)
    {
        if ((next & DeferredFlush.Preparation.List) != 0)
        {
            UserCalls.Defer(_deferred!);
        }

        if ((next & DeferredFlush.Preparation.Queue) != 0)
        {
            ThreadPool.UnsafeQueueUserWorkItem(_deferred!, preferLocal: true);
        }

        if ((next & DeferredFlush.Preparation.Monitor) != 0)
        {
            _connection.Socket.Loop.Watch(_deferred!);
        }
    }

    private ValueTask<FlushResult> FinishFlush(CancellationToken cancellationToken)
    {
        ParkTail();
        if (_pending < _pauseAt || _cancelRequested || _closed)
        {
            return new ValueTask<FlushResult>(TakeResult());
        }

        // Another thread's flush may have begun to wait while this one was sending.
        ThrowIfWaiting();
        if (_pendingFlush is not { IsFree: true })
        {
            _pendingFlush = new PendingFlush(this);
        }

        _waiting = true;
        return _pendingFlush.Begin(cancellationToken);
    }

    /// <summary>Ends the wait of a flush. Under the gate.</summary>
    /// <returns>What the caller has to have told to the user after leaving it.</returns>
    private PendingFlush EndWait(bool isCanceled = false)
    {
        _waiting = false;
        NoteUserCall();
        _pendingFlush!.End(isCanceled, isCompleted: _closed);
        return _pendingFlush;
    }

    /// <summary>Has an ended flush told to the user, who began another one without waiting for that. Under the gate, which costs those alone who do so.</summary>
    private static void QueueForgotten(PendingFlush? ended)
    {
        if (ended is not null)
        {
            ThreadPool.UnsafeQueueUserWorkItem(ended, preferLocal: false);
        }
    }

    /// <summary>The token of a flush that waits, or waited, was cancelled.</summary>
    internal void OnTokenCancelled(PendingFlush flush)
    {
        lock (_gate)
        {
            if (!_waiting || _pendingFlush != flush || !flush.IsCancellationRequested)
            {
                return;
            }

            _ = EndWait();
        }

        ThreadPool.UnsafeQueueUserWorkItem(flush, preferLocal: false);
    }

    private FlushResult TakeResult()
    {
        var result = new FlushResult(_cancelRequested, isCompleted: _closed);
        _cancelRequested = false;
        return result;
    }

    /// <summary>Sends what was deferred, whichever thread it waits for.</summary>
    internal void SendAllDeferred()
    {
        lock (_gate)
        {
            if (!HasDeferred || !TryBeginSend())
            {
                return;
            }
        }

        _ = Send(Sender.Other);
    }

    /// <summary>Sends what waits for the calling thread, which is through with user code.</summary>
    internal void SendDeferred()
    {
        lock (_gate)
        {
            if (!_deferred!.IsDue(Environment.CurrentManagedThreadId) || !TryBeginSend())
            {
                return;
            }
        }

        _ = Send(Sender.Other);
    }

    /// <summary>Sends what waits for the end of a work item of the pool, or for its turn there.</summary>
    internal void SendQueued()
    {
        bool again;
        bool sends;
        lock (_gate)
        {
            sends = _deferred!.TryDequeue(out again) && TryBeginSend();
        }

        if (again)
        {
            ThreadPool.UnsafeQueueUserWorkItem(_deferred, preferLocal: false);
        }
        else if (sends)
        {
            Send();
        }
    }

    /// <summary>Sends what has waited for too long. On the monitor's thread.</summary>
    /// <returns>Whether something waits that may come to that.</returns>
    internal bool CheckDeferred()
    {
        lock (_gate)
        {
            var again = _deferred!.Check(out var isOverdue);
            if (!isOverdue || !TryBeginSend())
            {
                return again;
            }
        }

        return Send(Sender.Monitor);
    }

    /// <summary>The reader is about to wait: what waits for its thread leaves before, unless that sends for several calls. Under the gate.</summary>
    /// <returns>Whether the caller now owns the sending side, and has to call <see cref="Send()"/>.</returns>
    internal bool TryBeginAnswer() =>
        _deferred is { } deferred && deferred.IsAnswer(Environment.CurrentManagedThreadId, UserCalls.IsInside, UserCalls.IsInBatch) && TryBeginSend();

    /// <summary>User code of this connection is about to run. Under the gate.</summary>
    internal void NoteUserCall() => _deferred?.NoteUserCall();
}
