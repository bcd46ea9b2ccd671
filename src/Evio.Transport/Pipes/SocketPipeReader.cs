using System.IO.Pipelines;
using System.Runtime.ExceptionServices;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// The input of a connection: a <see cref="PipeReader"/> that receives from the socket itself, into pooled blocks, when its caller reads
/// and the socket is readable. It keeps the contract of <see cref="Pipe"/>'s reader.
/// </summary>
/// <remarks>
/// <para>
/// Its parts are the received bytes (<see cref="ReceivedBuffer"/>), what may be received (<see cref="InputReadiness"/>), when to receive
/// before the caller reads (<see cref="ReadAheadPolicy"/>), and the read that waits (<see cref="PendingRead"/>). The connection's gate
/// guards all state. It is never held during a system call or a callback. The thread that sets <see cref="_receiving"/> owns the socket's
/// receiving side until it clears it.
/// </para>
/// <para>
/// This file and <c>SocketPipeReader.Waiting.cs</c>, about the read that waits, are the caller's side. <c>SocketPipeReader.Receiving.cs</c>
/// is the socket's side.
/// </para>
/// <para>A read that has to wait goes through these states:</para>
/// <code>
///              ReadAsync    readable             cancel, abort, end   completion runs
///  Idle        Waiting      (notes it)           (notes it)           -
///  NotAwaited  refused      (notes it)           Scheduled, to pool   -
///  Waiting     refused      Scheduled, dispatch  Scheduled, to pool   -
///  Scheduled   refused      (notes it)           (notes it)           Idle, or Waiting when nothing came
/// </code>
/// <para>
/// The first read of a connection that begins on its loop is NotAwaited until its caller awaits it. Then it is Waiting; or, when there was
/// something to note, Scheduled, and dispatched by the loop.
/// </para>
/// </remarks>
internal sealed partial class SocketPipeReader : PipeReader, ILoopCall
{
    /// <summary>
    /// The number of reads in a row that have begun to wait on the thread pool, after which reads are completed there as well. The loop
    /// always completes the first one.
    /// </summary>
    private const int ReadsBeforePool = 3;

    private readonly EvioConnection _connection;
    private readonly Lock _gate;

    // The read that waits, or has waited last.
    private PendingRead? _pendingRead;

    private ReceivedBuffer _received;
    private InputReadiness _readiness;
    private ReadAheadPolicy _policy;

    // The number of bytes that complete a read, as ReadAtLeastAsync has asked.
    private int _minimumSize;

    private WaitState _state;
    private ReadState _read;
    private bool _ended;
    private bool _completed;
    private bool _cancelRequested;
    private bool _wasPolled;

    // The cost of a completion, and the number of reads in a row that have begun to wait on the thread pool. The callers of these reads
    // have awaited something in between, and continued there.
    private LoopCallCost _cost;
    private int _readsOnPool;
    private Exception? _error;

    internal SocketPipeReader(EvioConnection connection, BlockSource blocks, EvioTransportOptions options)
    {
        _connection = connection;
        _gate = connection.Gate;
        _received = new ReceivedBuffer(blocks);
        _policy = new ReadAheadPolicy(options.MaxReadBufferSize is null or 0 ? long.MaxValue : options.MaxReadBufferSize.Value);
        _maxReceive = (int)Math.Min(_policy.MaxBuffered, options.Scheduling == LoopScheduling.ThreadPool ? MaxReceive : MaxReceiveInline);
    }

    private enum WaitState : byte
    {
        Idle,
        NotAwaited,
        Waiting,
        Scheduled,
    }

    private enum ReadState : byte
    {
        None,

        /// <summary>After a canceled read: AdvanceTo may follow, or another read.</summary>
        Tentative,

        /// <summary>A result was returned, and AdvanceTo has to follow.</summary>
        Active,
    }

    /// <summary>Whether the application has completed the reader.</summary>
    internal bool IsComplete => _completed;

    /// <summary>
    /// Whether the first read is left to the loop even if there is something to read already. To be set before the connection is used.
    /// </summary>
    internal bool FirstReadOnLoop { get; set; }

    public override ValueTask<ReadResult> ReadAsync(CancellationToken cancellationToken = default) => ReadAsync(0, cancellationToken);

    // Unlike the base class, this does not use ReadAsync and AdvanceTo, which would mark bytes as examined that the caller has not seen.
    protected override ValueTask<ReadResult> ReadAtLeastAsyncCore(int minimumSize, CancellationToken cancellationToken) =>
        ReadAsync(minimumSize, cancellationToken);

    private ValueTask<ReadResult> ReadAsync(int minimumSize, CancellationToken cancellationToken)
    {
        if (cancellationToken.IsCancellationRequested)
        {
            // As Pipe does: to read from a completed reader is an error, even with a cancelled token.
            ThrowIfCompleted();
            return ValueTask.FromCanceled<ReadResult>(cancellationToken);
        }

        // A read that was cancelled before it began returns at once, as with Pipe, and does not count as the first.
        if (FirstReadOnLoop && !Volatile.Read(ref _cancelRequested))
        {
            FirstReadOnLoop = false;
            if (!_connection.Socket.Loop.IsCurrent)
            {
                return ReadOnLoop(minimumSize, cancellationToken);
            }
        }

        while (true)
        {
            bool sendFirst;
            lock (_gate)
            {
                ThrowIfUnreadable();
                _policy.NoteRead();
                _minimumSize = minimumSize;
                sendFirst = false;
                if (TryBeginFinalReceive())
                {
                    goto receive;
                }

                if (TryTakeResult(out var result))
                {
                    return new ValueTask<ReadResult>(result);
                }

                // Deferred output leaves before the reader waits for an answer to it, or soon after.
                sendFirst = _connection.Output.TryBeginFlushBeforeRead();
                if (!sendFirst && !TryBeginReceive(intoTail: true))
                {
                    return BeginWait(cancellationToken);
                }
            }

            if (sendFirst)
            {
                _connection.Output.Send();
                continue;
            }

        receive:
            Receive();
        }
    }

    public override bool TryRead(out ReadResult result)
    {
        while (true)
        {
            bool sendFirst;
            lock (_gate)
            {
                ThrowIfUnreadable();
                _policy.NoteRead();
                _minimumSize = 0;
                sendFirst = false;
                if (TryBeginFinalReceive())
                {
                    goto receive;
                }

                if (TryTakeResult(out result))
                {
                    return true;
                }

                sendFirst = _connection.Output.TryBeginFlushBeforeRead();
                if (!sendFirst && !TryBeginReceive(intoTail: true))
                {
                    return false;
                }
            }

            if (sendFirst)
            {
                _connection.Output.Send();
                continue;
            }

        receive:
            Receive();
        }
    }

    public override void AdvanceTo(SequencePosition consumed) => AdvanceTo(consumed, consumed);

    public override void AdvanceTo(SequencePosition consumed, SequencePosition examined)
    {
        bool readAhead;
        lock (_gate)
        {
            if (_completed)
            {
                throw new InvalidOperationException("Reading is not allowed after the reader was completed.");
            }

            if (_read == ReadState.None)
            {
                throw new InvalidOperationException("No reading operation to complete.");
            }

            _received.Advance(consumed, examined, _receiving);
            _read = ReadState.None;
            readAhead = TryBeginReadAhead();
        }

        if (readAhead)
        {
            if (_paused)
            {
                _paused = false;
                _connection.OnReadAheadResumed();
            }

            ReadAhead();
        }
    }

    public override void CancelPendingRead()
    {
        lock (_gate)
        {
            _cancelRequested = true;
            if (_state is not (WaitState.Waiting or WaitState.NotAwaited))
            {
                return;
            }

            _state = WaitState.Scheduled;
        }

        // Never on the caller's stack, because the caller may hold locks of its own.
        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    public override void Complete(Exception? exception = null)
    {
        bool endsUse;
        lock (_gate)
        {
            if (_completed)
            {
                return;
            }

            _completed = true;
            _read = ReadState.None;
            if (!_receiving)
            {
                _received.Clear();
            }

            endsUse = _connection.TryRelease();
        }

        if (endsUse)
        {
            _connection.OnReleased();
        }
    }

    private void ThrowIfCompleted()
    {
        if (_completed)
        {
            throw new InvalidOperationException("Reading is not allowed after the reader was completed.");
        }
    }

    private void ThrowIfUnreadable()
    {
        ThrowIfCompleted();
        if (_read == ReadState.Active || _state != WaitState.Idle)
        {
            throw new InvalidOperationException("Reading is already in progress.");
        }

        if (_error is not null)
        {
            ExceptionDispatchInfo.Throw(_error);
        }
    }

    private bool TryTakeResult(out ReadResult result)
    {
        if (_cancelRequested || _ended || (_received.Unexamined > 0 && _received.Has(_minimumSize)))
        {
            _read = _cancelRequested ? ReadState.Tentative : ReadState.Active;
            result = new ReadResult(_completed ? default : _received.Bytes, _cancelRequested, _ended);
            _cancelRequested = false;
            return true;
        }

        result = default;
        return false;
    }
}
