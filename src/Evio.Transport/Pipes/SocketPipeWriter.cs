using System.Buffers;
using System.IO.Pipelines;

namespace Evio.Transport.Pipes;

/// <summary>
/// The output of a connection: a <see cref="PipeWriter"/> that sends to the socket itself, straight from its pooled blocks and, as a rule,
/// on the thread that flushes. The loop sends what the kernel did not take. It keeps the contract of <see cref="Pipe"/>'s writer.
/// </summary>
/// <remarks>
/// <para>
/// <see cref="GetMemory"/> and <see cref="Advance"/> belong to the one thread that writes, and take no lock: they touch blocks that no
/// sender has seen, and the free end of <see cref="_tail"/>. The connection's gate guards everything else. It is never held during a system
/// call or a callback, except for a call of the pool when a write rents a block. The thread that sets <see cref="_sending"/> owns the
/// socket's sending side, and the flushed bytes, until it clears it.
/// </para>
/// <para>
/// Edge-triggered epoll(7) reports room once, when the kernel has refused some before. A send that is taken only in part, or not at all,
/// sets <see cref="_awaitsWritable"/>, and the next writable event continues it. An event during the send is kept in
/// <see cref="_writableDuringSend"/>, which is cleared <i>before</i> each send, and makes the send repeat.
/// </para>
/// <para>
/// This file and <c>SocketPipeWriter.Flushing.cs</c> are the caller's side. <c>SocketPipeWriter.Sending.cs</c> is the socket's side.
/// </para>
/// <para>A flush may be <i>deferred</i>: more output is about to come, and one send will take it all (<see cref="DeferredFlush"/>).</para>
/// </remarks>
internal sealed partial class SocketPipeWriter : PipeWriter
{
    /// <summary>
    /// The largest block in bytes that is opened without being asked for. With twice as much, responses of 1 MiB were a tenth slower.
    /// </summary>
    private const int MaxBlock = 32 * 1024;

    /// <summary>
    /// The longest write in bytes that is copied under the gate, for which the loop may wait. Longer ones are copied before.
    /// </summary>
    private const int MaxCopiedUnderGate = 16 * 1024;

    private readonly EvioConnection _connection;
    private readonly Lock _gate;
    private readonly BlockSource _blocks;
    private readonly long _pauseAt;
    private readonly long _resumeBelow;

    // Of the writing thread: the block that it fills, and the first block that it has opened since the last flush. Then the number of bytes
    // written since then, the number in the last flush, and whether memory is handed out.
    private BufferSegment? _tail;
    private BufferSegment? _unlinked;
    private long _unflushed;
    private long _lastFlushed;
    private bool _handedOut;

    // The parked tail block: the block in use after a flush that has left something to send. The writer takes it when it comes back, or the
    // sender takes it when all is sent, so that an idle connection holds none. The first to take it owns it. It is taken with an
    // interlocked exchange, because the writer has no lock.
    private BufferSegment? _parkedTail;

    // Created by the first flush that is deferred.
    private DeferredFlush? _deferred;

    private bool _completed;
    private bool _closed;

    // Whether a flush waits for room, and the operation that its caller holds, or has held. It serves the next flush as well, unless its
    // completion is still under way.
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

    /// <summary>Whether the application has completed the writer.</summary>
    internal bool IsComplete => _completed;

    /// <summary>Whether a flush is deferred.</summary>
    internal bool HasDeferred => _deferred is { Waits: true };

    public override Memory<byte> GetMemory(int sizeHint = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(sizeHint);
        ThrowIfCompleted();
        ReclaimTail();
        if (_tail is null || _tail.Free.Length < Math.Max(sizeHint, 1))
        {
            // As many bytes as are written already, or were in the last flush, may well come again.
            var opened = _blocks.Open(sizeHint, expected: (int)Math.Min(Math.Max(_unflushed, _lastFlushed), MaxBlock));
            Link(opened, opened);
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
    /// As with <see cref="Pipe"/>, and unlike the use of the memory of <see cref="GetMemory"/>, this may run at the same time as
    /// <see cref="Complete"/>, or another write. A server broadcasts to a connection whose handler returns at that moment, for example.
    /// Each write arrives whole, or is refused. Bytes are copied under the gate, or into blocks that no other thread knows. So no block
    /// goes back to the pool, or is sent, while it is being filled.
    /// </remarks>
    public override ValueTask<FlushResult> WriteAsync(ReadOnlyMemory<byte> source, CancellationToken cancellationToken = default)
    {
        bool sends;
        DeferredFlush.Preparation next;
        ValueTask<FlushResult> flush;
        var copy = source.Length > MaxCopiedUnderGate ? Copy(source.Span) : default;
        try
        {
            lock (_gate)
            {
                ThrowIfCompleted();
                if (_closed)
                {
                    // As Pipe does: the reader is gone, so nothing is copied, and no cancellation is reported.
                    return new ValueTask<FlushResult>(new FlushResult(isCanceled: false, isCompleted: true));
                }

                // Checked before any byte is taken, so that a refused write leaves nothing behind.
                if (cancellationToken.IsCancellationRequested)
                {
                    return ValueTask.FromCanceled<FlushResult>(cancellationToken);
                }

                ThrowIfWaiting();
                if (copy.First is null)
                {
                    this.Write(source.Span);
                }
                else
                {
                    ReclaimTail();
                    Link(copy.First, copy.Last!);
                    _unflushed += source.Length;
                    copy = default;
                }

                flush = BeginFlush(out sends, out next, cancellationToken);
            }
        }
        finally
        {
            CloseAll(copy.First);
        }

        return ContinueFlush(flush, sends, next, cancellationToken);
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

            ThrowIfWaiting();
            flush = BeginFlush(out sends, out next, cancellationToken);
        }

        return ContinueFlush(flush, sends, next, cancellationToken);
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

        // Never on the caller's stack, because the caller may hold locks of its own.
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
            endsUse = _connection.TryRelease();
        }

        if (endsUse)
        {
            _connection.OnReleased();
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
}
