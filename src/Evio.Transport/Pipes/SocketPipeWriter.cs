using System.Buffers;
using System.Diagnostics;
using System.IO.Pipelines;
using System.Runtime.CompilerServices;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// The output of a connection: a <see cref="PipeWriter"/> that sends to the socket itself, straight from its pooled blocks and, as a rule, on the thread
/// that flushes. The loop finishes what the kernel would not take. The contract is that of <see cref="Pipe"/>'s writer.
/// </summary>
/// <remarks>
/// <para>
/// <see cref="GetMemory"/> and <see cref="Advance"/> belong to the one thread that writes, and take no lock: they touch blocks that no sender has
/// seen, and the free end of <see cref="_tail"/>. Everything else is guarded by the connection's gate, which is never held during a system call or
/// a callback. Whoever sets <see cref="_sending"/> owns the socket's sending side, and the flushed bytes, until it clears it.
/// </para>
/// <para>
/// Edge-triggered epoll(7) reports room once, when the kernel has refused some before: a send that is taken only in part, or not at all, leaves
/// <see cref="_blocked"/>, and the next writable event sends on. An event during the send is kept in <see cref="_roomAgain"/>, which is
/// cleared <i>before</i> each send, and makes it repeat.
/// </para>
/// <para>A flush may be <i>deferred</i>: more output is about to come, and one send will take it all (<see cref="DeferredFlush"/>).</para>
/// </remarks>
internal sealed class SocketPipeWriter : PipeWriter
{
    /// <summary>A larger block is not opened unless it is asked for: with twice as much, responses of 1 MiB were a tenth slower.</summary>
    private const int MaxBlock = 32 * 1024;

    /// <summary>How much of a write is copied before the gate, for which the loop may wait, is free for a moment.</summary>
    private const int MaxCopy = 64 * 1024;

    /// <summary>How often a thread that is through with user code sends for one connection before it leaves the rest.</summary>
    private const int MaxSendsForOthers = 2;

    private readonly EvioConnection _connection;
    private readonly Lock _gate;
    private readonly BlockSource _blocks;
    private readonly long _pauseAt;
    private readonly long _resumeBelow;

    // The writing thread's: the block that it fills, the first of those that it opened since the last flush, what it wrote since then, and before.
    private BufferSegment? _tail;
    private BufferSegment? _unlinked;
    private long _unflushed;
    private long _lastFlushed;
    private bool _handedOut;

    // The sender's: the blocks from _head to _last, of which _pending bytes from _headIndex on are flushed and not yet taken by the kernel.
    private BufferSegment? _head;
    private BufferSegment? _last;
    private int _headIndex;
    private long _pending;

    // The block among them that the writing thread may still be filling, or null. The sender does not give it back.
    private BufferSegment? _shared;

    // That block while its writer is away after a flush that has left something to send, so that an idle connection holds none: of the writer, who comes back to
    // it, and the sender, who is done with it, the first to take it from here has it. Taken with an interlocked exchange, since the writer has no lock.
    private BufferSegment? _lent;

    // Made by the first flush that waits for company.
    private DeferredFlush? _deferred;

    private bool _sending;
    private bool _blocked;
    private bool _roomAgain;
    private bool _completed;
    private bool _finished;
    private bool _closed;

    // Whether a flush waits for room, and what its user holds, or held: it serves the next one, too, unless its completion is still on its way.
    private bool _waiting;
    private bool _cancelRequested;
    private PendingFlush? _pendingFlush;

    internal SocketPipeWriter(EvioConnection connection, BlockSource blocks, long? maxBuffered)
    {
        _connection = connection;
        _gate = connection.Gate;
        _blocks = blocks;
        _pauseAt = maxBuffered is null or 0 ? long.MaxValue : maxBuffered.Value;
        _resumeBelow = Math.Max(1, _pauseAt / 2);
    }

    public override bool CanGetUnflushedBytes => true;

    public override long UnflushedBytes => _unflushed;

    /// <summary>Whether the user has completed it.</summary>
    internal bool IsComplete => _completed;

    /// <summary>Whether a flush waits for company.</summary>
    internal bool HasDeferred => _deferred is { Waits: true };

    public override Memory<byte> GetMemory(int sizeHint = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(sizeHint);
        ThrowIfCompleted();
        TakeBack();
        if (_tail is null || _tail.Free.Length < Math.Max(sizeHint, 1))
        {
            // As much as there is already, or was in the last flush, may well come again.
            var opened = _blocks.Open(sizeHint, expected: (int)Math.Min(Math.Max(_unflushed, _lastFlushed), MaxBlock));
            if (_unlinked is null)
            {
                _unlinked = opened;
            }
            else
            {
                _tail!.Append(opened);
            }

            _tail = opened;
        }

        _handedOut = true;
        return _tail.Free;
    }

    public override Span<byte> GetSpan(int sizeHint = 0) => GetMemory(sizeHint).Span;

    public override void Advance(int bytes)
    {
        if ((uint)bytes > (uint)(_tail?.Free.Length ?? 0))
        {
            throw new ArgumentOutOfRangeException(nameof(bytes), bytes, "More than the memory that was given out.");
        }

        _handedOut = false;
        if (bytes > 0)
        {
            _tail!.Fill(bytes);
            _unflushed += bytes;
        }
    }

    /// <remarks>
    /// As with <see cref="Pipe"/>, and other than the memory of <see cref="GetMemory"/>, this may meet a <see cref="Complete"/>, or another write: a server broadcasts to a connection whose
    /// handler returns at that moment. Bytes are copied under the gate, so that no block that is being filled goes back to the pool, or out.
    /// </remarks>
    public override ValueTask<FlushResult> WriteAsync(ReadOnlyMemory<byte> source, CancellationToken cancellationToken = default)
    {
        bool sends;
        DeferredFlush.Preparation next;
        ValueTask<FlushResult> flush;
        for (var left = source.Span; ; left = left[MaxCopy..])
        {
            lock (_gate)
            {
                ThrowIfCompleted();
                if (_closed)
                {
                    // As Pipe does: nobody is there to read it, so nothing is copied, and no cancellation is told of.
                    return new ValueTask<FlushResult>(new FlushResult(isCanceled: false, isCompleted: true));
                }

                if (left.Length == source.Length && cancellationToken.IsCancellationRequested)
                {
                    // Before anything is copied: a refused write leaves nothing behind.
                    return ValueTask.FromCanceled<FlushResult>(cancellationToken);
                }

                this.Write(left[..Math.Min(left.Length, MaxCopy)]);
                if (left.Length <= MaxCopy)
                {
                    flush = BeginFlush(out sends, out next, cancellationToken);
                    break;
                }
            }
        }

        return GoOnFlushing(flush, sends, next, cancellationToken);
    }

    public override ValueTask<FlushResult> FlushAsync(CancellationToken cancellationToken = default)
    {
        if (cancellationToken.IsCancellationRequested)
        {
            return ValueTask.FromCanceled<FlushResult>(cancellationToken);
        }

        bool sends;
        DeferredFlush.Preparation next;
        ValueTask<FlushResult> flush;
        lock (_gate)
        {
            if (_completed)
            {
                // As Pipe does: nothing is left to flush, and that is no error.
                return new ValueTask<FlushResult>(TakeResult());
            }

            flush = BeginFlush(out sends, out next, cancellationToken);
        }

        return GoOnFlushing(flush, sends, next, cancellationToken);
    }

    public override void CancelPendingFlush()
    {
        PendingFlush ended;
        lock (_gate)
        {
            if (!_waiting)
            {
                _cancelRequested = true;
                return;
            }

            ended = EndWait(isCanceled: true);
        }

        // Never on the caller's stack, which may hold locks of its own.
        ThreadPool.UnsafeQueueUserWorkItem(ended, preferLocal: false);
    }

    public override void Complete(Exception? exception = null)
    {
        bool send;
        bool endsUse;
        lock (_gate)
        {
            if (_completed)
            {
                return;
            }

            Commit();
            _completed = true;
            Detach();
            send = exception is null && TryBeginSend();
            endsUse = _connection.TryEndUse();
        }

        if (endsUse)
        {
            _connection.NoteUnused();
        }

        if (exception is not null)
        {
            _connection.OnWriterFailed(exception);
        }
        else if (send)
        {
            Send();
        }
        else
        {
            FinishIfDrained();
        }
    }

    // ---- Called by the connection and the reader ----

    /// <summary>Sends what waits for company, whichever thread it waits for.</summary>
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
    internal bool LookAfterDeferred()
    {
        lock (_gate)
        {
            var again = _deferred!.Look(out var isOverdue);
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

    /// <summary>Takes note of events, under the gate.</summary>
    /// <returns>Whether the caller now owns the sending side, and has to call <see cref="Send()"/>.</returns>
    internal bool Note(ReadyEvents events)
    {
        if ((events & (ReadyEvents.Writable | ReadyEvents.HangUp | ReadyEvents.Error)) == 0)
        {
            return false;
        }

        _roomAgain = true;
        if (!_blocked)
        {
            return false;
        }

        _blocked = false;
        return TryBeginSend();
    }

    /// <summary>
    /// Sends, as the owner of <see cref="_sending"/>, until all is sent or the kernel takes no more; then gives the ownership back. A flush that may go
    /// on runs its user's code in here, on this thread or on the thread pool as the options say.
    /// </summary>
    internal void Send() => Send(Sender.User);

    /// <inheritdoc cref="Send()"/>
    /// <returns>Whether the monitor has left something for its next look.</returns>
    private bool Send(Sender sender)
    {
        PendingFlush? ended = null;
        IoResult result;
        bool again;
        bool isClosed;
        var isLeft = false;
        var isLeftToPool = false;
        var sends = 0;
        var next = DeferredFlush.Preparation.None;
        do
        {
            result = SendOnce(out var offered);
            using (_connection.EnterGateUninterrupted())
            {
                again = Account(result, offered);
                if (again && sender == Sender.Monitor && _deferred!.TryRenew())
                {
                    // A writer who is as quick would have the monitor send for ever.
                    isLeft = true;
                    again = _sending = false;
                }
                else if (again && sender == Sender.Other && ++sends == MaxSendsForOthers)
                {
                    // The same. Nobody owns it meanwhile: the monitor sends it if the pool has no thread.
                    next = _deferred!.Leave();
                    isLeftToPool = true;
                    again = _sending = false;
                }

                isClosed = _closed;
                if (_waiting && !isClosed && _pending < _resumeBelow)
                {
                    QueueForgotten(ended);
                    ended = EndWait();
                }
            }
        }
        while (again);

        if (sender == Sender.User)
        {
            FinishSend(result, isClosed, ended);
        }
        else
        {
            FinishSendOnPool(result, isClosed, ended);
        }

        if (isLeftToPool)
        {
            ThreadPool.UnsafeQueueUserWorkItem(static writer => writer.SendAllDeferred(), this, preferLocal: false);
            Defer(next);
        }

        return isLeft;
    }

    private void FinishSendOnPool(IoResult result, bool isClosed, PendingFlush? ended)
    {
        if (isClosed || ended is not null || Volatile.Read(ref _completed) || (!result.IsSuccess && !result.WouldBlock))
        {
            ThreadPool.UnsafeQueueUserWorkItem(
                static send => send.Writer.FinishSend(send.Result, send.IsClosed, send.Ended), (Writer: this, Result: result, IsClosed: isClosed, Ended: ended), preferLocal: false);
        }
    }

    /// <summary>What follows the last send of an owner of the sending side, who is none any more.</summary>
    private void FinishSend(IoResult result, bool isClosed, PendingFlush? ended)
    {
        if (isClosed)
        {
            // The blocks are back, which the connection's end has waited for.
            _connection.NoteOneEndOnPool();
        }

        if (!result.IsSuccess && !result.WouldBlock)
        {
            _connection.OnSendFailed(_connection.ToException(result.Error));
        }

        FinishIfDrained();
        if (ended is not null)
        {
            _connection.Socket.Loop.Invoke(ended);
        }
    }

    /// <summary>The connection is gone: what is buffered is discarded, and flushes say "completed" from now on.</summary>
    internal void Close()
    {
        PendingFlush ended;
        lock (_gate)
        {
            if (_closed)
            {
                return;
            }

            _closed = true;
            _blocked = false;
            _deferred?.End();
            _ = TryEndLoan();
            DiscardFlushed();
            if (_sending)
            {
                _connection.ExpectOneEnd();
            }

            if (!_waiting)
            {
                return;
            }

            ended = EndWait();
        }

        ThreadPool.UnsafeQueueUserWorkItem(ended, preferLocal: false);
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

    // ---- Flushing: on the writing thread, under the gate ----

    /// <summary>Makes what was written the sender's.</summary>
    /// <param name="sends">Whether the caller now owns the sending side.</param>
    /// <param name="next">What else it has to do for the flush. For both there is <see cref="GoOnFlushing"/>, to be called after leaving the gate.</param>
    /// <param name="cancellationToken">The flush's.</param>
    private ValueTask<FlushResult> BeginFlush(out bool sends, out DeferredFlush.Preparation next, CancellationToken cancellationToken)
    {
        ThrowIfWaiting();
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
    private void TakeBack()
    {
        if (_tail is null && Volatile.Read(ref _lent) is not null)
        {
            _tail = Interlocked.Exchange(ref _lent, null);
        }
    }

    /// <summary>Takes the block that the last flush has left from the writer, unless he has come back to it. Under the gate.</summary>
    private bool TryEndLoan()
    {
        // Looked at first: most sends find nothing lent.
        if (_lent is null || Interlocked.Exchange(ref _lent, null) is null)
        {
            return false;
        }

        _shared = null;
        return true;
    }

    /// <summary>Makes all that was written the sender's; the block in use is shared with it.</summary>
    private void Commit()
    {
        TakeBack();
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
    private void LeaveBlock()
    {
        if (_handedOut)
        {
            return;
        }

        if (_pending > 0 && !_closed)
        {
            _lent = _tail;
            _tail = null;
        }
        else
        {
            Detach();
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

    /// <summary>Whether the flush waits for company.</summary>
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
        var isInside = UserCalls.IsInside;
        return !_connection.IsOutbound && (isInside || Thread.CurrentThread.IsThreadPoolThread) &&
            (_deferred ??= new DeferredFlush(this)).TryJoin(Environment.CurrentManagedThreadId, isInside, out next);
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

        if ((next & DeferredFlush.Preparation.Watch) != 0)
        {
            _connection.Socket.Loop.Watch(_deferred!);
        }
    }

    private ValueTask<FlushResult> FinishFlush(CancellationToken cancellationToken)
    {
        LeaveBlock();
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

    private FlushResult TakeResult()
    {
        var result = new FlushResult(_cancelRequested, isCompleted: _closed);
        _cancelRequested = false;
        return result;
    }

    // ---- Sending ----

    /// <summary>Takes the ownership of the sending side if there is something to send and room for it. Under the gate.</summary>
    private bool TryBeginSend()
    {
        if (_sending || _blocked || _closed || _pending == 0)
        {
            return false;
        }

        _deferred?.End();
        return _sending = true;
    }

    private IoResult SendOnce(out long offered)
    {
        // While this thread owns the sending side nobody else moves _head, and the flushed bytes stay as they are. _pending may grow.
        var left = Volatile.Read(ref _pending);
        var head = _head!;
        var first = head.Filled(_headIndex, left);
        offered = first.Length;
        if (offered == left || head.NextSegment is null)
        {
            Volatile.Write(ref _roomAgain, false);
            return _connection.Socket.Send(first.Span);
        }

        var memories = new MemoryArray();
        memories[0] = first;
        var count = 1;
        var segment = head.NextSegment;
        while (segment is not null && offered < left && count < StreamSocket.MaxBuffers)
        {
            memories[count] = segment.Filled(0, left - offered);
            offered += memories[count++].Length;
            segment = segment.NextSegment;
        }

        Volatile.Write(ref _roomAgain, false);
        return _connection.Socket.Send(((ReadOnlySpan<ReadOnlyMemory<byte>>)memories)[..count]);
    }

    /// <summary>Counts what a send came to, and gives the ownership back if that was the last one for now. Under the gate.</summary>
    /// <returns>Whether the owner goes on sending.</returns>
    private bool Account(IoResult result, long offered)
    {
        if (_closed)
        {
            _sending = false;
            DiscardFlushed();
            return false;
        }

        if (!result.IsSuccess && !result.WouldBlock)
        {
            // The connection closes this writer next.
            _sending = false;
            return false;
        }

        _pending -= result.Count;
        ReleaseSent(result.Count);
        if (_pending == 0)
        {
            _sending = false;
            if (TryEndLoan())
            {
                ReleaseSent(0);
            }
        }
        else if (result.Count < offered && !_roomAgain)
        {
            _sending = false;
            _blocked = true;
        }

        return _sending;
    }

    /// <summary>Moves on by what was sent, and gives back the blocks that are done with. Under the gate.</summary>
    private void ReleaseSent(int count)
    {
        _headIndex += count;
        while (_head is { } head && head != _shared && _headIndex >= head.Length)
        {
            _headIndex -= head.Length;
            _head = head.NextSegment;
            _blocks.Close(head);
        }

        if (_head is null)
        {
            Debug.Assert(_headIndex == 0 && _pending == 0);
            _last = null;
        }
    }

    /// <summary>Gives back all blocks but the shared one, unless they are being sent from: then the sender does it. Under the gate.</summary>
    private void DiscardFlushed()
    {
        if (_sending)
        {
            return;
        }

        _pending = 0;
        _headIndex = 0;
        while (_head is { } head && head != _shared)
        {
            _head = head.NextSegment;
            _blocks.Close(head);
        }

        if (_head is null)
        {
            _last = null;
        }
    }

    private void FinishIfDrained()
    {
        // Without the lock for the many sends before the last one: who completes the writer while somebody sends is seen by him, having had the lock
        // before his Account.
        if (!Volatile.Read(ref _completed))
        {
            return;
        }

        lock (_gate)
        {
            if (!_completed || _finished || _closed || _sending || _pending > 0)
            {
                return;
            }

            _finished = true;
        }

        _connection.OnOutputFinished();
    }

    /// <summary>On whose behalf a thread sends.</summary>
    private enum Sender : byte
    {
        /// <summary>The connection's user's, or the loop's.</summary>
        User,

        /// <summary>A thread that may be in the middle of another connection's user code: whatever may run user code is left to the thread pool.</summary>
        Other,

        /// <summary>The monitor's, whom others wait for: the same, and it sends what there was, and not what comes meanwhile.</summary>
        Monitor,
    }

    [InlineArray(StreamSocket.MaxBuffers)]
    private struct MemoryArray
    {
        private ReadOnlyMemory<byte> _first;
    }
}
