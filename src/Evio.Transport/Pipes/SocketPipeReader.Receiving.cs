using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <content>The socket's side: events, receiving, reading ahead, and the end.</content>
internal sealed partial class SocketPipeReader
{
    /// <summary>
    /// The largest number of bytes that one receive takes. Where the application runs on the loops, one block serves connection after
    /// connection, and stays in the processor's cache. More than 64 KiB pays there, because each receive makes the kernel announce the room
    /// to the peer.
    /// </summary>
    private const int MaxReceive = 64 * 1024;
    private const int MaxReceiveInline = 256 * 1024;

    private readonly int _maxReceive;

    // The number of bytes that the next receive may bring: what the last one brought, or twice as much if that one was full.
    private int _expected;

    private bool _receiving;

    // The connection's end waits for the receive that is under way.
    private bool _endsWithReceive;
    private bool _paused;

    /// <summary>The reader's place in the unread-input monitor, from 1 on; 0 when the monitor does not watch it.</summary>
    internal int MonitorPlace { get; set; }

    /// <summary>Takes note of events. Under the gate.</summary>
    /// <returns>What the loop has to do about them.</returns>
    internal ReadyAction Note(ReadyEvents events)
    {
        if (!_readiness.Note(events))
        {
            return ReadyAction.None;
        }

        if (_state == WaitState.Waiting && !_receiving)
        {
            _state = WaitState.Scheduled;
            return ReadyAction.CompleteRead;
        }

        return TryBeginReadAhead() ? ReadyAction.ReadAhead : TryBeginMonitoring() ? ReadyAction.MonitorUnread : ReadyAction.None;
    }

    /// <summary>
    /// Checks whether input is left in the kernel, and reads ahead what was left there for long. On the loop, by the unread-input monitor.
    /// </summary>
    /// <returns>Whether the monitor has to check again.</returns>
    internal bool CheckUnreadInput()
    {
        bool readAhead;
        lock (_gate)
        {
            if (_ended || _completed || (!_readiness.IsReadable && !_policy.IsUnreadForLong))
            {
                return _policy.IsMonitored = false;
            }

            _policy.NoteUnread(isReading: _state is WaitState.Waiting or WaitState.Scheduled);
            readAhead = TryBeginReadAhead();
        }

        if (!readAhead)
        {
            return true;
        }

        ReadAhead();
        lock (_gate)
        {
            return _policy.IsMonitored = !_ended;
        }
    }

    /// <summary>
    /// Receives without a read that waits, as long as there is input to read ahead. So the end of the input is noticed while the
    /// application is busy elsewhere. By the owner of the receiving side.
    /// </summary>
    internal void ReadAhead()
    {
        bool more;
        do
        {
            Receive();
            lock (_gate)
            {
                more = TryBeginReadAhead();
                _paused = !more && !_ended && _received.Unexamined >= _policy.MaxBuffered;
            }
        }
        while (more);

        if (_paused)
        {
            _connection.OnReadAheadPaused();
        }
    }

    /// <summary>
    /// Ends the input for a reason other than the peer's FIN. Later reads throw the reason. The buffers are kept until completion.
    /// </summary>
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
            if (_state == WaitState.NotAwaited)
            {
                // A failure runs no user code on this thread, and the caller may never await the read.
                _state = WaitState.Waiting;
            }

            if (!TryScheduleWaiter())
            {
                return;
            }
        }

        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    /// <summary>
    /// Notes that the socket is closed, and the input has ended. A receive that is under way is the last one, and the connection's end
    /// waits for it.
    /// </summary>
    internal void Close()
    {
        lock (_gate)
        {
            if (_receiving)
            {
                _endsWithReceive = true;
                _connection.AddPendingEnd();
            }
        }
    }

    /// <param name="intoTail">
    /// Whether the receive may fill the last block. True when a read receives, because that block is not released meanwhile.
    /// </param>
    private bool TryBeginReceive(bool intoTail)
    {
        if (_receiving || !_readiness.IsReadable || _ended || _error is not null || _completed)
        {
            return false;
        }

        _readiness.BeginReceive();
        _received.BeginReceive(intoTail, _expected);
        return _receiving = true;
    }

    /// <summary>
    /// Begins a receive if input is there and its end has come or is near. Both go out in one result, and the end is known while the
    /// application processes the input.
    /// </summary>
    private bool TryBeginFinalReceive() => _readiness.IsEndAhead && _received.Unexamined > 0 && _received.Unexamined < _policy.MaxBuffered && TryBeginReceive(intoTail: true);

    private bool TryBeginReadAhead() =>
        ReadsAhead && _state is WaitState.Idle or WaitState.NotAwaited && _received.Unexamined < _policy.MaxBuffered && TryBeginReceive(intoTail: false);

    private bool ReadsAhead => _policy.ReadsAhead(_readiness.IsEndAhead);

    /// <summary>Whether the caller has to add this reader to the unread-input monitor, because input is left in the kernel.</summary>
    private bool TryBeginMonitoring() => _readiness.IsReadable && !_policy.IsMonitored && !ReadsAhead && !_ended && !_completed && (_policy.IsMonitored = true);

    /// <summary>Receives once, as the owner of <see cref="_receiving"/>, and gives the ownership back.</summary>
    private void Receive()
    {
        var last = _received.Filling;
        var blocks = _received.Blocks;
        var waiterIsReady = false;
        var monitor = false;
        var fin = false;
        bool isLast;
        Exception? error = null;
        BufferSegment? received = null;
        var room = 0;
        IoResult result = default;
        try
        {
            received = last ?? blocks.Open(atLeast: 0, _expected);
            room = received.Free.Length;
            result = _connection.Socket.Receive(received.Free.Span);
            if (received != last && result.Count > 0 && result.Count <= room / 2 && room > BlockSource.UsualSize)
            {
                // Less came than was expected, and may be kept for long.
                received = blocks.Exchange(received, received.Free.Span[..result.Count]);
            }
        }
        catch (Exception exception)
        {
            // The pool has no memory left. That ends this connection, and only this one.
            error = exception;
        }

        if (received is not null && received != last && (result.Count == 0 || error is not null))
        {
            blocks.Close(received);
        }

        using (_connection.EnterGateUninterrupted())
        {
            _receiving = false;
            _received.EndReceive(received, error is null ? result.Count : 0);
            isLast = _endsWithReceive;
            if (error is not null)
            {
                _error ??= error;
                _ended = true;
            }
            else if (result.Count > 0)
            {
                var full = result.Count == room;
                _readiness.EndReceive(full);
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
                _received.Clear();
            }

            monitor = TryBeginMonitoring();

            // A read may have begun to wait during this receive.
            waiterIsReady = (_received.Unexamined > 0 || _ended || _readiness.IsReadable) && TryScheduleWaiter();
        }

        if (monitor)
        {
            _connection.UnreadInputMonitor.Add(this);
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
            _connection.SignalEndOnPool();
        }
    }
}

/// <summary>What the loop has to do after an event.</summary>
internal enum ReadyAction : byte
{
    None,
    CompleteRead,
    ReadAhead,
    MonitorUnread,
}
