using System.Buffers;
using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// The life of a stream connection in callbacks: opened, data, pre-write, and closed or detached, each on the connection's loop.
/// </summary>
/// <remarks>
/// <code>
///             callback's action                          peer's FIN            all output sent
///  Open       Close: Closing, Detach: Detaching          Closing               -
///  Closing    ignored (a close is not taken back)        -                     Closed
///  Detaching  Close: Closing                             noticed by the owner  Detached
///  Closed, Detached: nothing is called any more
/// </code>
/// An error, an exception of a callback and the close time-out lead to Closed from every state, without the rest of the output. This file
/// has the open connection; its end, its callbacks and the calls of other threads have files of their own.
/// </remarks>
internal sealed partial class StreamConnection : Connection, IStreamHandler
{
    /// <summary>The number of input buffers that a connection may receive before the loop serves the other connections.</summary>
    private const int MaxReceivesPerTurn = 16;

    /// <summary>The number of wakes that one posted call serves before the loop serves the other connections.</summary>
    internal const int MaxWakesPerTurn = 16;

    private readonly ServerLoop _owner;
    private readonly IStreamChannel _channel;
    private readonly OutputQueue _output;
    private ConnectionOptions _options = new();
    private State _state = State.Open;
    private bool _started;
    private bool _readable;
    private bool _endAhead;
    private bool _sendBlocked;
    private bool _paused;
    private bool _inputEnded;
    private bool _shutdownRequested;
    private bool _shutdownSent;
    private bool _turnPosted;
    private bool _flushPosted;
    private int _wakes;
    private int _refused;
    private long _received;
    private long _sent;
    private long _lastActivity;
    private LoopTimer? _closeTimer;
    private LoopTimer? _idleTimer;

    internal StreamConnection(ServerLoop owner, IStreamChannel channel, int addressIndex)
    {
        _owner = owner;
        _channel = channel;
        AddressIndex = addressIndex;
        _output = new OutputQueue(owner.Blocks, this);

        // Asked for while the socket is open: the address stays known after the close.
        LocalEndPoint = channel.LocalEndPoint;
    }

    private enum State : byte
    {
        Open,
        Closing,
        Detaching,
        Closed,
        Detached,
    }

    public override int AddressIndex { get; }

    public override EventLoop Loop => _owner.Loop;

    public override EndPoint? LocalEndPoint { get; }

    public override EndPoint? RemoteEndPoint => _channel.RemoteEndPoint;

    public override IBufferWriter<byte> Output
    {
        get
        {
            if (!IsInCallback)
            {
                if (IsOver)
                {
                    throw IsOverException();
                }

                // In another connection's callback, or a posted call. Nothing of this connection follows that would send the output.
                PostFlush();
            }

            return _output;
        }
    }

    public override long BytesReceived => Volatile.Read(ref _received);

    public override long BytesSent => Volatile.Read(ref _sent);

    public override long PendingOutput => _output.Length + _channel.Unsent;

    // ---- Beginning ----

    /// <summary>Calls <see cref="Events.Opened"/> and begins to read.</summary>
    internal void Open()
    {
        if (_owner.Events.Opened is null || TryCallOpened())
        {
            Start();
        }
    }

    private void Start()
    {
        if (_state is State.Closed or State.Detached)
        {
            return;
        }

        try
        {
            _options.Validate();
            _channel.Apply(_options.Socket);
            _started = true;
            _channel.Start(this);
        }
        catch (Exception exception)
        {
            CloseNow(exception, reset: true);
            return;
        }

        if (_options.IdleTimeout > TimeSpan.Zero)
        {
            _lastActivity = Environment.TickCount64;
            _idleTimer = Loop.ScheduleInternal(_options.IdleTimeout, static connection => ((StreamConnection)connection!).CheckIdle(), this);
        }

        EndTurn();
    }

    // ---- Events of the socket ----

    void IStreamHandler.OnReady(ReadyEvents events)
    {
        _readable |= (events & ~ReadyEvents.Writable) != 0;
        _endAhead |= (events & ~(ReadyEvents.Readable | ReadyEvents.Writable)) != 0;
        if ((_sendBlocked || _paused || _shutdownRequested || _state != State.Open)
            && (events & (ReadyEvents.Writable | ReadyEvents.HangUp | ReadyEvents.Error)) != 0)
        {
            _sendBlocked = false;
            EndTurn();
        }

        Read();
    }

    void IStreamHandler.OnLoopStopping() => CloseNow(null, reset: true);

    void IStreamHandler.OnClosed()
    {
    }

    /// <summary>
    /// Receives and calls <see cref="Events.Data"/> until the socket is drained, the output has reached its high-water mark, or it is the
    /// other connections' turn.
    /// </summary>
    private void Read()
    {
        for (var i = 0; _readable && !_paused && _state == State.Open && !_inputEnded && _callbacks == 0; i++)
        {
            if (PendingOutput >= _options.HighWaterMark)
            {
                _paused = true;
                return;
            }

            if (i == MaxReceivesPerTurn)
            {
                PostTurn();
                return;
            }

            // Cleared before the receive, so that an event during the receive counts again. A receive that does not fill the buffer has
            // drained the socket, unless the end of the input is ahead, which gets no event of its own (epoll(7)).
            _readable = false;
            var buffer = _owner.RentInputBuffer();
            var result = _channel.Receive(buffer);
            if (result.Count > 0)
            {
                _readable = result.Count == buffer.Length || _endAhead;
                _received += result.Count;
                NoteActivity();
                if (!TryCallData(buffer.AsSpan(0, result.Count), buffer))
                {
                    return;
                }

                EndTurn();
                continue;
            }

            _owner.ReturnInputBuffer(buffer);
            if (result.IsSuccess)
            {
                _inputEnded = true;
                Request(State.Closing);
                EndTurn();
            }
            else if (!result.WouldBlock)
            {
                CloseNow(new SocketException((int)result.Error), reset: false);
            }
        }
    }

    private void PostTurn()
    {
        if (!_turnPosted)
        {
            _turnPosted = Loop.TryPostInternal(
                static state =>
                {
                    var connection = (StreamConnection)state!;
                    connection._turnPosted = false;
                    connection.Read();
                },
                this);
        }
    }

    private void PostFlush()
    {
        if (!_flushPosted && MayBeWritten)
        {
            _flushPosted = Loop.TryPostInternal(
                static state =>
                {
                    var connection = (StreamConnection)state!;
                    connection._flushPosted = false;
                    connection.EndTurn();
                },
                this);
        }
    }

    // ---- Turns ----

    private void Request(State state)
    {
        if (_state == State.Open || (_state == State.Detaching && state == State.Closing))
        {
            _state = state;

            // From now on no wake is served and no output accepted.
            Volatile.Write(ref _refused, 1);
        }
    }

    /// <summary>
    /// Follows everything that may have written output or requested an end: sends, resumes reading below the low-water mark, and ends the
    /// connection when nothing is pending. Requests of a callback are served after it has returned.
    /// </summary>
    private void EndTurn()
    {
        if (_callbacks > 0 || !_started || _state is State.Closed or State.Detached || !TrySend())
        {
            return;
        }

        var pending = PendingOutput;
        if (_state == State.Open)
        {
            if (pending == 0 && _shutdownRequested && !_shutdownSent)
            {
                _shutdownSent = true;
                _channel.ShutdownSend();
            }

            if (_paused && pending < _options.LowWaterMark)
            {
                _paused = false;
                PostTurn();
            }
        }
        else if (pending > 0)
        {
            _closeTimer ??= Loop.ScheduleInternal(_owner.Events.CloseTimeout, static connection => ((StreamConnection)connection!).GiveUp(), this);
        }
        else if (_state == State.Detaching)
        {
            CompleteDetach();
        }
        else
        {
            CloseNow(null, reset: false);
        }
    }

    /// <summary>Sends as much of the pending output as the kernel takes.</summary>
    /// <returns>False when an error has ended the connection.</returns>
    private bool TrySend()
    {
        if (_sendBlocked)
        {
            return true;
        }

        if (_output.Length == 0)
        {
            // Returns blocks that a callback has left empty, and completes empty sends.
            _output.Release();
            return true;
        }

        if (_owner.Events.PreWrite is { } preWrite && CallPreWrite(preWrite) is { } failure)
        {
            CloseNow(failure, reset: true);
            return false;
        }

        var result = _output.SendTo(_channel, out var sent);
        if (sent > 0)
        {
            _sent += sent;
            NoteActivity();
        }

        if (result.IsSuccess)
        {
            return true;
        }

        if (result.WouldBlock)
        {
            _sendBlocked = true;
            return true;
        }

        CloseNow(new SocketException((int)result.Error), reset: false);
        return false;
    }
}
