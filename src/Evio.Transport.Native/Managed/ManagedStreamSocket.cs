using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Managed;

/// <summary>
/// The counterpart of <see cref="StreamSocket"/> on the BCL's <see cref="Socket"/>: it transfers without blocking, and reports readiness to
/// its loop as an edge-triggered poller would. Everything but <see cref="Close"/> and the addresses belongs to the loop.
/// </summary>
/// <remarks>
/// <para>
/// An asynchronous operation stands in where the kernel would report an edge. A receive that finds less than it has room for leaves a
/// receive of zero bytes pending. That receive ends when something can be received (bytes, the end of the input or an error), and takes
/// nothing out of the socket. A send that the kernel does not take in full leaves its next byte with a pending send, which ends when the
/// kernel has room again. At most one of each is pending.
/// </para>
/// <para>
/// The operations complete on the thread pool. A completion only notes what happened, and posts it to the loop. There the registration's
/// token decides whether the socket is still registered. So a completion after the close has no effect.
/// </para>
/// </remarks>
[SuppressMessage("Design", "CA1001", Justification = "A cancellation source without a timer or wait handle holds nothing to dispose of.")]
[SuppressMessage("Reliability", "CA2012", Justification = "The awaiters are kept for their one completion; an async method would allocate for each.")]
internal sealed partial class ManagedStreamSocket : IPollTarget, IStreamChannel
{
    private readonly Socket _socket;
    private readonly CancellationTokenSource _detached = new();
    private readonly Action _onReceivable;
    private readonly Action _onProbeSent;
    private ConfiguredValueTaskAwaitable<int>.ConfiguredValueTaskAwaiter _pendingReceive;
    private ConfiguredValueTaskAwaitable<int>.ConfiguredValueTaskAwaiter _pendingSend;
    private IStreamHandler? _handler;
    private ulong _token;
    private int _closeRequested;
    private bool _ended;
    private bool _sendShutdown;

    // Used on the loop: whether an operation is pending, or its event is on the way. Cleared with the event, so that nothing is awaited
    // twice.
    private bool _awaitsInput;
    private bool _awaitsRoom;

    /// <summary>The next byte of a send that was cut short. Created when the peer first does not keep up.</summary>
    private byte[]? _probe;

    // Written by the completions before their event is posted, read on the loop after it has arrived.
    private int _events;
    private SocketError _receiveError;
    private SocketError _sendError;

    /// <param name="loop">The owner, which has counted the connection.</param>
    /// <param name="socket">The connection; this object disposes it.</param>
    internal ManagedStreamSocket(EventLoop loop, Socket socket)
    {
        Loop = loop;
        _socket = socket;
        _socket.Blocking = false;

        // Read while the socket can report them.
        LocalEndPoint = socket.LocalEndPoint;
        RemoteEndPoint = socket.RemoteEndPoint;
        _onReceivable = OnReceivable;
        _onProbeSent = OnProbeSent;
    }

    public EventLoop Loop { get; }

    public EndPoint? LocalEndPoint { get; }

    public EndPoint? RemoteEndPoint { get; }

    public int Unsent => _awaitsRoom && !_ended ? 1 : 0;

    public void Start(IStreamHandler handler)
    {
        using var owner = Loop.Ownership.Enter();
        if (!owner.IsOwner || _handler is not null || Volatile.Read(ref _closeRequested) != 0)
        {
            throw new InvalidOperationException("A socket is started once, on its loop, while it is open.");
        }

        _handler = handler;
        _token = Loop.Add(owner, this);
        AwaitInput();
    }

    public void Apply(in SocketSettings settings)
    {
        if (settings.TcpKeepAlive > TimeSpan.Zero && _socket.AddressFamily != AddressFamily.Unix)
        {
            Set(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, 1, nameof(settings.TcpKeepAlive));
            Set(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, SocketOptions.Seconds(settings.TcpKeepAlive), nameof(settings.TcpKeepAlive));
            if (settings.TcpKeepAliveInterval > TimeSpan.Zero)
            {
                var seconds = SocketOptions.Seconds(settings.TcpKeepAliveInterval);
                Set(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, seconds, nameof(settings.TcpKeepAliveInterval));
            }

            if (settings.TcpKeepAliveCount > 0)
            {
                Set(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, settings.TcpKeepAliveCount, nameof(settings.TcpKeepAliveCount));
            }
        }

        if (settings.ReceiveBufferSize > 0)
        {
            Set(SocketOptionLevel.Socket, SocketOptionName.ReceiveBuffer, settings.ReceiveBufferSize, nameof(settings.ReceiveBufferSize));
        }

        if (settings.SendBufferSize > 0)
        {
            Set(SocketOptionLevel.Socket, SocketOptionName.SendBuffer, settings.SendBufferSize, nameof(settings.SendBufferSize));
        }
    }

    public IoResult Receive(Span<byte> buffer)
    {
        if (_ended)
        {
            return IoResult.Closed;
        }

        if (_receiveError != SocketError.Success)
        {
            return IoResult.FromError(_receiveError);
        }

        var count = _socket.Receive(buffer, SocketFlags.None, out var error);
        if (error is SocketError.WouldBlock || (count > 0 && count < buffer.Length))
        {
            AwaitInput();
        }

        Loop.Meter.Received(count);
        return error == SocketError.Success ? IoResult.FromCount(count) : IoResult.FromError(error);
    }

    public IoResult Send(ReadOnlySpan<byte> buffer)
    {
        if (_ended)
        {
            return IoResult.Closed;
        }

        if (_sendError != SocketError.Success)
        {
            return IoResult.FromError(_sendError);
        }

        if (_awaitsRoom)
        {
            return IoResult.WouldBlockResult;
        }

        var count = _socket.Send(buffer, SocketFlags.None, out var error);
        if (error is not (SocketError.Success or SocketError.WouldBlock))
        {
            return IoResult.FromError(error);
        }

        if (count < buffer.Length)
        {
            AwaitRoom(buffer[count]);
            count++;
        }

        Loop.Meter.Sent(count);
        return IoResult.FromCount(count);
    }

    public IoResult Send(ReadOnlySpan<ReadOnlyMemory<byte>> buffers)
    {
        var total = 0;
        foreach (var buffer in buffers)
        {
            var result = Send(buffer.Span);
            if (!result.IsSuccess && total == 0)
            {
                return result;
            }

            total += result.Count;
            if (!result.IsSuccess && !result.WouldBlock)
            {
                // The next call returns the error. The event causes that call, because no operation is pending whose event would.
                _sendError = result.Error;
                Post(ReadyEvents.Writable | ReadyEvents.Error);
                break;
            }

            if (result.Count < buffer.Length)
            {
                break;
            }
        }

        return IoResult.FromCount(total);
    }

    public void ShutdownSend()
    {
        if (_ended || _sendShutdown)
        {
            return;
        }

        _sendShutdown = true;
        try
        {
            _socket.Shutdown(SocketShutdown.Send);
        }
        catch (SocketException)
        {
            // The connection is gone already, and there is nothing to report.
        }
    }

    public void Reset()
    {
        if (!_ended)
        {
            // Without lingering: what is unsent is discarded, and the peer of a TCP connection gets RST.
            _ended = true;
            _socket.Close(0);
        }
    }

    public void Close()
    {
        if (Interlocked.Exchange(ref _closeRequested, 1) != 0)
        {
            return;
        }

        // After the end of the loop and its table, this caller is the only one that gets here.
        Loop.RunOnLoop(static socket => ((ManagedStreamSocket)socket!).CloseOnLoop(), this);
    }

    public Socket Detach()
    {
        using var owner = Loop.Ownership.Enter();
        if (!owner.IsOwner)
        {
            throw new InvalidOperationException("A socket is detached on its loop.");
        }

        ObjectDisposedException.ThrowIf(Interlocked.Exchange(ref _closeRequested, 1) != 0 || _ended, this);
        Debug.Assert(!_awaitsRoom, "The owner detaches when everything is sent.");
        _ended = true;
        Loop.Remove(owner, _token);
        Loop.ConnectionRemoved();

        // The pending receive leaves the socket's queue before this returns, unless it is completing at this moment. In either case it
        // takes no byte.
        _detached.Cancel();
        _socket.Blocking = true;
        return _socket;
    }

    private void CloseOnLoop()
    {
        using (var owner = Loop.Ownership.Enter())
        {
            Loop.Remove(owner, _token);
        }

        Loop.ConnectionRemoved();

        // The BCL resets a connection whose close cancels a pending operation, unless its output was shut before.
        ShutdownSend();
        if (!_ended)
        {
            _ended = true;
            _socket.Dispose();
        }

        _handler?.OnClosed();
    }

    void IPollTarget.OnReady(ReadyEvents events) => _handler!.OnReady(events);

    void IPollTarget.OnHandlerException(Exception exception)
    {
        Reset();
        Close();
    }

    void IPollTarget.OnLoopStopping()
    {
        try
        {
            _handler!.OnLoopStopping();
        }
        finally
        {
            Close();
        }
    }

    private void Set(SocketOptionLevel level, SocketOptionName option, int value, string name)
    {
        try
        {
            _socket.SetSocketOption(level, option, value);
        }
        catch (SocketException exception)
        {
            throw new SocketException(
                (int)exception.SocketErrorCode, $"{name} could not be set to {value} ({exception.SocketErrorCode}).");
        }
    }
}
