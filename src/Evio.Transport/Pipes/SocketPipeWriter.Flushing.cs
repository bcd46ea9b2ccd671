using System.Diagnostics.CodeAnalysis;
using System.IO.Pipelines;

namespace Evio.Transport.Pipes;

/// <content>Flushing, and flushes that wait. Members run on the writing thread and under the gate unless they say otherwise.</content>
internal sealed partial class SocketPipeWriter
{
    /// <summary>Hands what was written to the sender. No flush may be waiting.</summary>
    /// <param name="sends">Whether the caller now owns the sending side.</param>
    /// <param name="next">
    /// What else the caller has to do for the flush. <see cref="ContinueFlush"/> does both, after the caller has left the gate.
    /// </param>
    /// <param name="cancellationToken">The flush's.</param>
    private ValueTask<FlushResult> BeginFlush(out bool sends, out DeferredFlush.Preparation next, CancellationToken cancellationToken)
    {
        Commit();
        sends = !TryDefer(out next) && TryBeginSend();
        return sends ? default : FinishFlush(cancellationToken);
    }

    /// <summary>Does what <see cref="BeginFlush"/> asks for. Outside of the gate.</summary>
    private ValueTask<FlushResult> ContinueFlush(
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

    /// <summary>Takes the parked tail block back, unless the sender has taken it.</summary>
    private void ReclaimTail()
    {
        if (_tail is null && Volatile.Read(ref _parkedTail) is not null)
        {
            _tail = Interlocked.Exchange(ref _parkedTail, null);
        }
    }

    /// <summary>Takes the parked tail block for the sender, unless the writer has taken it back. Under the gate.</summary>
    private bool TryTakeParkedTail()
    {
        // Read first, because most sends find none.
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

    /// <summary>
    /// Adds a chain of blocks to those that were opened since the last flush. By the writing thread, which has reclaimed the tail.
    /// </summary>
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

    /// <summary>Hands all that was written to the sender. The block in use is shared with the sender.</summary>
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
            // Releases the block that was shared before, if another one has taken its place.
            ReleaseSent(0);
        }
    }

    /// <summary>Parks or releases the block in use after a flush.</summary>
    /// <remarks>
    /// An idle connection holds no block. A connection with pending output goes on with the block in use, so that a peer that does not read
    /// does not occupy a block for each small flush. The block stays in use while memory is handed out, because <see cref="Pipe"/> permits
    /// a caller to ask for memory before a flush and to advance after it.
    /// </remarks>
    private void ParkTail()
    {
        // A write may have come in between, because a flush sends outside of the gate.
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

    /// <summary>Leaves the block in use to the sender, which releases it. The next write opens a new one.</summary>
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

    /// <summary>Defers the flush, if more output is likely to come soon.</summary>
    /// <param name="next">What <see cref="Defer"/> has to do then, after the caller has left the gate.</param>
    /// <returns>Whether the flush is deferred.</returns>
    private bool TryDefer(out DeferredFlush.Preparation next)
    {
        next = DeferredFlush.Preparation.None;
        if (_pending == 0 || _pending >= Math.Min(DeferredFlush.Limit, _pauseAt) || _sending || _awaitsWritable || _closed)
        {
            return false;
        }

        // A client is excluded: it flushes once for a request, and may wait for the answer on this very thread. A loop that runs no user
        // code, and a thread of the application, would only hand to the pool what they can do themselves.
        var isInCall = UserCalls.IsInside;
        return !_connection.IsOutbound && (isInCall || Thread.CurrentThread.IsThreadPoolThread) &&
            (_deferred ??= new DeferredFlush(this)).TryJoin(Environment.CurrentManagedThreadId, isInCall, out next);
    }

    private void Defer(DeferredFlush.Preparation next)
    {
        if ((next & DeferredFlush.Preparation.AddToCalls) != 0)
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
    /// <returns>The operation that the caller has to complete after leaving the gate.</returns>
    private PendingFlush EndWait(bool isCanceled = false)
    {
        _waiting = false;
        NoteUserCall();
        _pendingFlush!.End(isCanceled, isCompleted: _closed);
        return _pendingFlush;
    }

    /// <summary>
    /// Queues the completion of an ended flush whose caller has begun another one without waiting for it. Under the gate, which costs only
    /// such callers.
    /// </summary>
    private static void QueueUnawaitedCompletion(PendingFlush? ended)
    {
        if (ended is not null)
        {
            ThreadPool.UnsafeQueueUserWorkItem(ended, preferLocal: false);
        }
    }

    /// <summary>The token of a flush that waits, or has waited, was cancelled.</summary>
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

    /// <summary>Sends the deferred output, whichever thread it waits for.</summary>
    internal void SendAllDeferred()
    {
        lock (_gate)
        {
            if (!HasDeferred || !TryBeginSend())
            {
                return;
            }
        }

        _ = Send(Sender.OtherConnection);
    }

    /// <summary>Sends the output that waits for the calling thread, which has finished user code.</summary>
    internal void SendDeferred()
    {
        lock (_gate)
        {
            if (!_deferred!.IsDue(Environment.CurrentManagedThreadId) || !TryBeginSend())
            {
                return;
            }
        }

        _ = Send(Sender.OtherConnection);
    }

    /// <summary>Sends the output that waits for the end of a work item of the pool, or for its turn in the pool's queue.</summary>
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

    /// <summary>Sends output that was deferred for too long. On the monitor's thread.</summary>
    /// <returns>Whether the monitor has to check again.</returns>
    internal bool CheckDeferred()
    {
        lock (_gate)
        {
            var again = _deferred!.Check(out var isStalled);
            if (!isStalled || !TryBeginSend())
            {
                return again;
            }
        }

        return Send(Sender.Monitor);
    }

    /// <summary>
    /// Begins to send the output that waits for the calling thread, before the reader waits; not if the thread sends at the end of a batch.
    /// Under the gate.
    /// </summary>
    /// <returns>Whether the caller now owns the sending side, and has to call <see cref="Send()"/>.</returns>
    internal bool TryBeginFlushBeforeRead() =>
        _deferred is { } deferred && deferred.MustFlushBeforeRead(Environment.CurrentManagedThreadId, UserCalls.IsInside, UserCalls.IsInBatch) && TryBeginSend();

    /// <summary>Notes that user code of this connection is about to run. Under the gate.</summary>
    internal void NoteUserCall() => _deferred?.NoteUserCall();
}
