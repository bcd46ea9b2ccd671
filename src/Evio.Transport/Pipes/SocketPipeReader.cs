using System.IO.Pipelines;
using System.Runtime.ExceptionServices;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// The input of a connection: a <see cref="PipeReader"/> that receives from the socket itself, into pooled blocks, when its user asks and the
/// socket is readable. The contract is that of <see cref="Pipe"/>'s reader.
/// </summary>
/// <remarks>
/// <para>
/// It is made of what was received (<see cref="ReceivedBuffer"/>), what may be received (<see cref="InputReadiness"/>), when that is done before the user asks (<see cref="ReadAheadPolicy"/>), and
/// the read that waits (<see cref="PendingRead"/>). All state is guarded by the connection's gate, which is never held during a system call or a callback. Whoever sets
/// <see cref="_receiving"/> owns the socket's receiving side until it clears it. This file is the user's side, with the part about the read that waits; the part about receiving is the socket's.
/// </para>
/// <para>A read that has to wait goes through these states:</para>
/// <code>
///              ReadAsync    readable             cancel, abort, end   completion runs
///  Idle        Waiting      (notes it)           (notes it)           -
///  Unobserved  refused      (notes it)           Scheduled, to pool   -
///  Waiting     refused      Scheduled, dispatch  Scheduled, to pool   -
///  Scheduled   refused      (notes it)           (notes it)           Idle, or Waiting when nothing came
/// </code>
/// <para>
/// Unobserved is the first read of a connection that begins on its loop, until somebody awaits it: then it is Waiting, or, when there was something to note,
/// Scheduled, and dispatched by the loop.
/// </para>
/// </remarks>
internal sealed partial class SocketPipeReader : PipeReader, ILoopCall
{
    /// <summary>After how many reads in a row that begin to wait on the thread pool deliveries are made there, too. The first one is always made by the loop.</summary>
    private const int ReadsBeforePool = 3;

    private readonly EvioConnection _connection;
    private readonly Lock _gate;

    // The read that waits, or waited last.
    private PendingRead? _pendingRead;

    private ReceivedBuffer _received;
    private InputReadiness _readiness;
    private ReadAheadPolicy _policy;

    // How much has to be there before a read completes, as ReadAtLeastAsync asked.
    private int _minimumSize;

    private WaitState _state;
    private ReadState _read;
    private bool _ended;
    private bool _completed;
    private bool _cancelRequested;
    private bool _wasLookedAt;

    // What deliveries cost, and how many reads in a row have begun to wait on the thread pool: their users have awaited something in between, and gone on there.
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
        Unobserved,
        Waiting,
        Scheduled,
    }

    private enum ReadState : byte
    {
        None,

        /// <summary>After a canceled read: AdvanceTo may follow, or another read.</summary>
        Tentative,

        /// <summary>A result is out, and AdvanceTo has to follow.</summary>
        Active,
    }

    /// <summary>Whether the user has completed it.</summary>
    internal bool IsComplete => _completed;

    /// <summary>Whether the first read is left to the loop even if there is something to read already. To be set before the connection is used.</summary>
    internal bool BeginsOnLoop { get; set; }

    public override ValueTask<ReadResult> ReadAsync(CancellationToken cancellationToken = default) => ReadAsync(0, cancellationToken);

    // Not in terms of ReadAsync and AdvanceTo, as the base class does it: that would mark as examined what its caller has not seen.
    protected override ValueTask<ReadResult> ReadAtLeastAsyncCore(int minimumSize, CancellationToken cancellationToken) =>
        ReadAsync(minimumSize, cancellationToken);

    private ValueTask<ReadResult> ReadAsync(int minimumSize, CancellationToken cancellationToken)
    {
        if (cancellationToken.IsCancellationRequested)
        {
            // As Pipe does: to read from a completed reader is a mistake, cancelled or not.
            ThrowIfCompleted();
            return ValueTask.FromCanceled<ReadResult>(cancellationToken);
        }

        // One that was cancelled before it began comes back at once, as with Pipe, and does not count as the first.
        if (BeginsOnLoop && !Volatile.Read(ref _cancelRequested))
        {
            BeginsOnLoop = false;
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
                if (TryBeginReceiveOfTheEnd())
                {
                    goto receive;
                }

                if (TryTakeResult(out var result))
                {
                    return new ValueTask<ReadResult>(result);
                }

                // What was deferred has to leave before the reader waits for an answer to it, or soon after.
                sendFirst = _connection.Output.TryBeginAnswer();
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
                if (TryBeginReceiveOfTheEnd())
                {
                    goto receive;
                }

                if (TryTakeResult(out result))
                {
                    return true;
                }

                sendFirst = _connection.Output.TryBeginAnswer();
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
            if (_state is not (WaitState.Waiting or WaitState.Unobserved))
            {
                return;
            }

            _state = WaitState.Scheduled;
        }

        // Never on the caller's stack, which may hold locks of its own.
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

            endsUse = _connection.TryEndUse();
        }

        if (endsUse)
        {
            _connection.NoteUnused();
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
