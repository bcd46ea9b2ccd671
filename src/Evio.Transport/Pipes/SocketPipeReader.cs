using System.Buffers;
using System.Diagnostics;
using System.IO.Pipelines;
using System.Runtime.ExceptionServices;
using System.Threading.Tasks.Sources;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>
/// The input of a connection: a <see cref="PipeReader"/> that receives from the socket itself, into pooled blocks, when its user asks and the
/// socket is readable. The contract is that of <see cref="Pipe"/>'s reader.
/// </summary>
/// <remarks>
/// <para>
/// The state below is guarded by the connection's gate, which is never held during a system call or a callback. Whoever sets
/// <see cref="_receiving"/> owns the socket's receiving side until it clears it.
/// </para>
/// <para>Readiness follows the rules of edge-triggered epoll(7):</para>
/// <list type="bullet">
/// <item><see cref="_readable"/> is cleared <i>before</i> a receive, so that an event during it is not lost.</item>
/// <item>A receive that fills its room leaves more: <see cref="_readable"/> is set again. One that does not has drained the socket...</item>
/// <item>...unless the end of the input, an error or an urgent mark may follow (<see cref="_endAhead"/>), which get no event of their own.</item>
/// </list>
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
internal sealed class SocketPipeReader : PipeReader, ILoopCall
{
    /// <summary>Less room than this at the end of a block is left unused, and a receive begins a new one.</summary>
    private const int MinReceive = 2048;

    /// <summary>
    /// The most that a receive takes at once. Where the application runs on the loops, one block serves connection after connection, and stays in the processor's
    /// cache: there more than 64 KiB pays, since each receive makes the kernel tell the peer of the room.
    /// </summary>
    private const int MaxReceive = 64 * 1024;
    private const int MaxReceiveInline = 256 * 1024;

    /// <summary>After how many reads in a row that begin to wait on the thread pool deliveries are made there, too. The first one is always made by the loop.</summary>
    private const int ReadsBeforePool = 3;

    private readonly EvioConnection _connection;
    private readonly Lock _gate;
    private readonly BlockSource _blocks;
    private readonly long _maxBuffered;
    private readonly int _maxReceive;

    // The read that waits, or waited last.
    private PendingRead? _pendingRead;

    // What has been received and not consumed: from _headIndex in _head to the end of _tail.
    private BufferSegment? _head;
    private BufferSegment? _tail;
    private int _headIndex;
    private long _unexamined;

    // How much has to be there before a read completes, as ReadAtLeastAsync asked.
    private int _minimumSize;

    // How much the next receive may bring, as the last one has it.
    private int _expected;

    private WaitState _state;
    private ReadState _read;
    private bool _receiving;

    // The block that the receive goes on filling, if it does: it is not given back meanwhile, whatever is consumed.
    private BufferSegment? _filling;
    private bool _endsWithReceive;
    private bool _readable;
    private bool _endAhead;
    private bool _ended;
    private bool _completed;
    private bool _paused;
    private bool _cancelRequested;
    private bool _watched;
    private bool _wasLookedAt;

    // What deliveries cost, and how many reads in a row have begun to wait on the thread pool: their users have awaited something in between, and gone on there.
    private LoopCallCost _cost;
    private int _readsOnPool;
    private Neglect _neglect;
    private Exception? _error;

    internal SocketPipeReader(EvioConnection connection, BlockSource blocks, EvioTransportOptions options)
    {
        _connection = connection;
        _gate = connection.Gate;
        _blocks = blocks;
        _maxBuffered = options.MaxReadBufferSize is null or 0 ? long.MaxValue : options.MaxReadBufferSize.Value;
        _maxReceive = (int)Math.Min(_maxBuffered, options.Scheduling == EvioScheduling.ThreadPool ? MaxReceive : MaxReceiveInline);
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

    /// <summary>Whether the user leaves input in the kernel for long, as <see cref="UnreadInputWatch"/> finds it.</summary>
    private enum Neglect : byte
    {
        None,

        /// <summary>There was some at the last look, and no read has begun since then.</summary>
        Suspected,

        /// <summary>Still so a look later: the loop reads ahead until the user reads again.</summary>
        Certain,
    }

    /// <summary>Whether the user has completed it.</summary>
    internal bool IsComplete => _completed;

    /// <summary>Whether the first read is left to the loop even if there is something to read already. To be set before the connection is used.</summary>
    internal bool BeginsOnLoop { get; set; }

    /// <summary>The watch's own: its place in there, or 0.</summary>
    internal int WatchPlace { get; set; }

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
                _neglect = Neglect.None;
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

                // What waits for company has to leave before the reader waits for an answer to it, or soon after.
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
                _neglect = Neglect.None;
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

            Advance((BufferSegment?)consumed.GetObject(), consumed.GetInteger(), (BufferSegment?)examined.GetObject(), examined.GetInteger());
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
                ReleaseAll();
            }

            endsUse = _connection.TryEndUse();
        }

        if (endsUse)
        {
            _connection.NoteUnused();
        }
    }

    // ---- Readiness: called by the connection ----

    /// <summary>Takes note of events, under the gate, and says what the loop has to do about them.</summary>
    internal ReadyAction Note(ReadyEvents events)
    {
        if ((events & ~ReadyEvents.Writable) == 0)
        {
            return ReadyAction.None;
        }

        _readable = true;
        _endAhead |= (events & ~(ReadyEvents.Writable | ReadyEvents.Readable)) != 0;
        if (_state == WaitState.Waiting && !_receiving)
        {
            _state = WaitState.Scheduled;
            return ReadyAction.CompleteRead;
        }

        return TryBeginReadAhead() ? ReadyAction.ReadAhead : TryBeginWatch() ? ReadyAction.Watch : ReadyAction.None;
    }

    /// <summary>Looks whether input is left in the kernel, and reads ahead what was left there for long. On the loop, by the watch.</summary>
    /// <returns>Whether there is a reason to look again.</returns>
    internal bool LookAfter()
    {
        bool readAhead;
        lock (_gate)
        {
            if (_ended || _completed || (!_readable && _neglect != Neglect.Certain))
            {
                return _watched = false;
            }

            if (_state is WaitState.Waiting or WaitState.Scheduled)
            {
                _neglect = Neglect.None;
            }
            else if (_neglect != Neglect.Certain)
            {
                _neglect++;
            }

            readAhead = TryBeginReadAhead();
        }

        if (!readAhead)
        {
            return true;
        }

        ReadAhead();
        lock (_gate)
        {
            return _watched = !_ended;
        }
    }

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

    /// <summary>Receives for nobody in particular, until the end, so that it is noticed while the user is busy elsewhere. By the owner.</summary>
    internal void ReadAhead()
    {
        bool more;
        do
        {
            Receive();
            lock (_gate)
            {
                more = TryBeginReadAhead();
                _paused = !more && !_ended && _unexamined >= _maxBuffered;
            }
        }
        while (more);

        if (_paused)
        {
            _connection.OnReadAheadPaused();
        }
    }

    /// <summary>Ends the input for a reason other than the peer's FIN; reads throw it from now on. Its buffers are kept until completion.</summary>
    internal void Fail(Exception reason)
    {
        lock (_gate)
        {
            if (_ended)
            {
                return;
            }

            _ended = true;
            _error = reason;
            if (_state == WaitState.Unobserved)
            {
                // No code of the user's follows a failure on this thread, and he may never ask.
                _state = WaitState.Waiting;
            }

            if (!TryScheduleWaiter())
            {
                return;
            }
        }

        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    /// <summary>The socket is closed, and the input has ended: what is being received is the last, and the connection's end waits for it.</summary>
    internal void Close()
    {
        lock (_gate)
        {
            if (_receiving)
            {
                _endsWithReceive = true;
                _connection.ExpectOneEnd();
            }
        }
    }

    // ---- Receiving ----

    /// <param name="intoTail">Whether the caller is the reader, so that nobody gives the last block back meanwhile.</param>
    private bool TryBeginReceive(bool intoTail)
    {
        if (_receiving || !_readable || _ended || _error is not null || _completed)
        {
            return false;
        }

        _readable = false;
        _filling = intoTail && _tail is { } tail && tail.Free.Length >= Math.Max(MinReceive, _expected) ? tail : null;
        return _receiving = true;
    }

    /// <summary>
    /// Whether input is there, and its end, too, or nearly: both go out in one result, and the end is known while the user looks at the input.
    /// </summary>
    private bool TryBeginReceiveOfTheEnd() => _endAhead && _unexamined > 0 && _unexamined < _maxBuffered && TryBeginReceive(intoTail: true);

    private bool TryBeginReadAhead() =>
        ReadsAhead && _state is WaitState.Idle or WaitState.Unobserved && _unexamined < _maxBuffered && TryBeginReceive(intoTail: false);

    private bool ReadsAhead => _endAhead || _neglect == Neglect.Certain || _maxBuffered == long.MaxValue;

    /// <summary>Whether the caller has to give this reader to the watch, because input is left in the kernel.</summary>
    private bool TryBeginWatch() => _readable && !_watched && !ReadsAhead && !_ended && !_completed && (_watched = true);

    /// <summary>Receives once, as the owner of <see cref="_receiving"/>, and gives the ownership back.</summary>
    private void Receive()
    {
        var last = _filling;
        var waiterIsReady = false;
        var watch = false;
        var fin = false;
        bool isLast;
        Exception? error = null;
        BufferSegment? received = null;
        var room = 0;
        IoResult result = default;
        try
        {
            received = last ?? _blocks.Open(atLeast: 0, _expected);
            room = received.Free.Length;
            result = _connection.Socket.Receive(received.Free.Span);
            if (received != last && result.Count > 0 && result.Count <= room / 2 && room > BlockSource.UsualSize)
            {
                // Less came than was expected, and may be kept for long.
                received = _blocks.Exchange(received, received.Free.Span[..result.Count]);
            }
        }
        catch (Exception exception)
        {
            // The pool has no memory left. That ends this connection, and only this one.
            error = exception;
        }

        if (received is not null && received != last && (result.Count == 0 || error is not null))
        {
            _blocks.Close(received);
        }

        using (_connection.EnterGateUninterrupted())
        {
            _receiving = false;
            _filling = null;
            isLast = _endsWithReceive;
            if (error is not null)
            {
                _error ??= error;
                _ended = true;
            }
            else if (result.Count > 0)
            {
                Append(received!, result.Count);
                _unexamined += result.Count;
                var full = result.Count == room;
                _readable |= full || _endAhead;
                _expected = full ? Math.Min(2 * Math.Max(room, _expected), _maxReceive) : result.Count;
            }
            else if (result.IsSuccess)
            {
                fin = _ended = true;
            }
            else if (!result.WouldBlock)
            {
                error = _connection.ToException(result.Error);
                _error ??= error;
                _ended = true;
            }

            if (_completed)
            {
                ReleaseAll();
            }
            else if (last is not null && result.Count == 0)
            {
                ReleaseEmpty();
            }

            watch = TryBeginWatch();

            // A read that began to wait while somebody else was receiving.
            waiterIsReady = (_unexamined > 0 || _ended || _readable) && TryScheduleWaiter();
        }

        if (watch)
        {
            _connection.Watch.Add(this);
        }

        if (fin)
        {
            _connection.OnPeerFin();
        }
        else if (error is not null)
        {
            _connection.OnReceiveFailed(error);
        }

        if (waiterIsReady)
        {
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
        }

        if (isLast)
        {
            _connection.NoteOneEndOnPool();
        }
    }

    private void Append(BufferSegment received, int count)
    {
        if (_tail is null)
        {
            _head = received;
            _headIndex = 0;
        }
        else if (_tail != received)
        {
            if (count <= Math.Min(MinReceive, _tail.Free.Length))
            {
                // A peer that sends byte by byte is not to have a block for each of them.
                received.Free.Span[..count].CopyTo(_tail.Free.Span);
                _blocks.Close(received);
                received = _tail;
            }
            else
            {
                _tail.Append(received);
            }
        }

        received.Fill(count);
        _tail = received;
    }

    // ---- Reading ----

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
        if (_cancelRequested || _ended || (_unexamined > 0 && HasMinimum()))
        {
            _read = _cancelRequested ? ReadState.Tentative : ReadState.Active;
            result = new ReadResult(Buffered(), _cancelRequested, _ended);
            _cancelRequested = false;
            return true;
        }

        result = default;
        return false;
    }

    private bool HasMinimum() =>
        _minimumSize <= 1 || Position(_tail!, _tail!.Length) - Position(_head!, _headIndex) >= _minimumSize;

    private ReadOnlySequence<byte> Buffered() =>
        _head is null || _completed ? default : new ReadOnlySequence<byte>(_head, _headIndex, _tail!, _tail!.Length);

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
            _neglect = Neglect.None;
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
            isReady = ((_readable && !_receiving) || _unexamined > 0 || _ended || _cancelRequested) && TryScheduleWaiter();
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

    private void OnTokenCancelled(PendingRead read)
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

    private void Advance(BufferSegment? consumed, int consumedIndex, BufferSegment? examined, int examinedIndex)
    {
        if (consumed is not null && examined is not null && Position(consumed, consumedIndex) > Position(examined, examinedIndex))
        {
            throw new InvalidOperationException("The examined position must be greater than or equal to the consumed position.");
        }

        var end = _tail is null ? 0 : Position(_tail, _tail.Length);
        var unexamined = _unexamined;
        if (examined is not null)
        {
            // What came in since the read stays unexamined.
            unexamined = end - Position(examined, examinedIndex);
            ArgumentOutOfRangeException.ThrowIfNegative(unexamined, nameof(examined));
            if (unexamined > _unexamined)
            {
                throw new InvalidOperationException("The examined position is before what was examined earlier.");
            }
        }

        if (consumed is null)
        {
            _unexamined = unexamined;
            return;
        }

        var segment = _head;
        while (segment is not null && segment != consumed)
        {
            segment = segment.NextSegment;
        }

        if (segment is null || (uint)consumedIndex > (uint)consumed.Length || (consumed == _head && consumedIndex < _headIndex))
        {
            throw new InvalidOperationException("The consumed position is not within the buffer that was read.");
        }

        _unexamined = unexamined;
        while (_head != consumed)
        {
            ReleaseHead();
        }

        _headIndex = consumedIndex;
        if (_headIndex == _head!.Length && (_head.NextSegment is not null || _unexamined == 0) && _head != _filling)
        {
            // Nothing left in it. An idle connection holds no block.
            ReleaseHead();
        }
        else if (_head == _tail && _head.Size > BlockSource.UsualSize && _head.Length - _headIndex <= MinReceive && !_receiving)
        {
            // The beginning of the next request, say, which may be long in coming.
            var rest = _head.Memory.Span[_headIndex..];
            _head = _tail = _blocks.Exchange(_head, rest);
            _head.Fill(rest.Length);
            _headIndex = 0;
        }
    }

    private static long Position(BufferSegment segment, int index) => segment.RunningIndex + index;

    private void ReleaseHead()
    {
        var released = _head!;
        _head = released.NextSegment;
        _headIndex = 0;
        if (_head is null)
        {
            _tail = null;
        }

        _blocks.Close(released);
    }

    /// <summary>Gives back the block that was consumed whole while a receive was to go on filling it.</summary>
    private void ReleaseEmpty()
    {
        if (_head is not null && _headIndex == _head.Length && _unexamined == 0)
        {
            ReleaseHead();
        }
    }

    private void ReleaseAll()
    {
        while (_head is not null)
        {
            ReleaseHead();
        }

        _unexamined = 0;
    }

    /// <summary>Somebody looks whether the read is complete, that he has not awaited yet.</summary>
    private void OnLook()
    {
        if (_state == WaitState.Unobserved)
        {
            // Who looks again, instead of awaiting it after the first look, may never await it.
            if (_wasLookedAt)
            {
                LeaveToLoop();
            }

            _wasLookedAt = true;
        }
    }

    private void OnAwait()
    {
        if (_state == WaitState.Unobserved)
        {
            LeaveToLoop();
        }
    }

    /// <summary>A read that waits.</summary>
    private sealed class PendingRead(SocketPipeReader reader) : PendingOperation<ReadResult>
    {
        public override ValueTaskSourceStatus GetStatus(short token)
        {
            reader.OnLook();
            return base.GetStatus(token);
        }

        public override void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
        {
            base.OnCompleted(continuation, state, token, flags);
            reader.OnAwait();
        }

        protected override void OnTokenCancelled() => reader.OnTokenCancelled(this);
    }
}

/// <summary>What the loop has to do after an event.</summary>
internal enum ReadyAction : byte
{
    None,
    CompleteRead,
    ReadAhead,
    Watch,
}
