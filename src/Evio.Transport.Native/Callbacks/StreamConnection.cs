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
/// An error, an exception of a callback or the close time-out lead to Closed from everywhere, without the rest of the output. The ends have a file of their
/// own, and so have the callbacks; this one is about the connection while it is open.
/// </remarks>
internal sealed partial class StreamConnection : Connection, IStreamHandler
{
    /// <summary>How many buffers of input one connection may take before the others of its loop get their turn.</summary>
    private const int MaxReceivesPerTurn = 16;

    /// <summary>How many wakes one posted call serves before the others of its loop get their turn.</summary>
    internal const int MaxWakesPerTurn = 16;

    private readonly ServerLoop _owner;
    private readonly IStreamChannel _channel;
    private readonly OutputQueue _output;
    private ConnectionOptions _options = new();
    private State _state = State.Open;
    private bool _started;
    private bool _readable;
    private bool _endAhead;
    private bool _blocked;
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

        // Asked for once, while they can be: after the close they are still the ones that the connection had.
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

                // Another connection's callback, or a posted call: no turn of this connection follows that would send it.
                PostFlush();
            }

            return _output;
        }
    }

    public override long BytesReceived => Volatile.Read(ref _received);

    public override long BytesSent => Volatile.Read(ref _sent);

    public override long PendingOutput => _output.Length + _channel.Unsent;

    public override bool Wake()
    {
        if (Volatile.Read(ref _refused) != 0)
        {
            return false;
        }

        // One posted call serves all wakes until it runs.
        if (Interlocked.Increment(ref _wakes) > 1 || Loop.TryPostInternal(static connection => ((StreamConnection)connection!).RunWakes(), this))
        {
            return true;
        }

        // The loop is ending, and no later wake is to rely on a call that was never posted.
        Volatile.Write(ref _refused, 1);
        return false;
    }

    public override Task SendAsync(ReadOnlyMemory<byte> data)
    {
        var completion = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        if (Volatile.Read(ref _refused) != 0 || !Loop.TryPostInternal(
                static state =>
                {
                    var (connection, data, completion) = ((StreamConnection, ReadOnlyMemory<byte>, TaskCompletionSource))state!;
                    connection.SendPosted(data, completion);
                },
                (this, data, completion)))
        {
            completion.SetException(ClosedException());
        }

        return completion.Task;
    }

    public override void ShutdownSend() => RunOnLoop(static connection =>
    {
        connection._shutdownRequested = true;
        connection.EndTurn();
    });

    public override void Close()
    {
        if (IsInCallback)
        {
            // At once, also from a callback that has lost its loop.
            Volatile.Write(ref _refused, 1);
        }

        RunOnLoop(static connection =>
        {
            connection.Request(State.Closing);
            connection.EndTurn();
        });
    }

    // ---- Beginning ----

    /// <summary>Tells the handler of the connection and begins to read.</summary>
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
            Finish(exception, reset: true);
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
        if ((_blocked || _paused || _shutdownRequested || _state != State.Open)
            && (events & (ReadyEvents.Writable | ReadyEvents.HangUp | ReadyEvents.Error)) != 0)
        {
            _blocked = false;
            EndTurn();
        }

        Read();
    }

    void IStreamHandler.OnLoopStopping() => Finish(null, reset: true);

    void IStreamHandler.OnClosed()
    {
    }

    /// <summary>Receives and calls Data until the socket is drained, the output is up to its high-water mark or the turn is over.</summary>
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

            // Before the receive, so that an event during it counts again. A full buffer leaves more, a short read has drained the socket, unless
            // the end of the input is ahead, which gets no event of its own (epoll(7)).
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
                Finish(new SocketException((int)result.Error), reset: false);
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

            // From now on no wake would be called and no output accepted.
            Volatile.Write(ref _refused, 1);
        }
    }

    /// <summary>
    /// What follows everything that may have written output or asked for an end: sends, goes on reading below the low-water mark, and ends the connection
    /// when nothing is pending. A callback that asks for something waits until it has returned.
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
            Leave();
        }
        else
        {
            Finish(null, reset: false);
        }
    }

    /// <summary>Sends what is pending, as far as the kernel takes it.</summary>
    /// <returns>False when the connection was ended by an error.</returns>
    private bool TrySend()
    {
        if (_blocked)
        {
            return true;
        }

        if (_output.Length == 0)
        {
            // Blocks that were given out and left empty, and empty sends, which are complete.
            _output.Release();
            return true;
        }

        if (_owner.Events.PreWrite is { } preWrite && CallPreWrite(preWrite) is { } failure)
        {
            Finish(failure, reset: true);
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
            _blocked = true;
            return true;
        }

        Finish(new SocketException((int)result.Error), reset: false);
        return false;
    }
}
