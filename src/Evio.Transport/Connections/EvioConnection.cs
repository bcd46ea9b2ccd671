using System.IO.Pipelines;
using System.Net.Sockets;
using Evio.Transport.Native;
using Evio.Transport.Pipes;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Evio.Transport;

/// <summary>
/// A connection, accepted or outbound: a socket on its loop, and the two pipe ends that are the socket. This file has the events of the
/// socket. The ends of the connection and its features have files of their own.
/// </summary>
/// <remarks>
/// <para>
/// A connection ends in one of these ways, with these effects on the reader, the writer, the peer and <see cref="ConnectionClosed"/>:
/// </para>
/// <code>
///                          reader                        writer        peer   ConnectionClosed
///  the peer's FIN          completes                     goes on       -      fires
///  the peer's reset        ConnectionResetException      "completed"   -      fires
///  output completed, sent  ConnectionAbortedException    is complete   FIN    fires
///  Abort, Complete(error)  the reason                    "completed"   RST    fires
/// </code>
/// <para>
/// In all cases but the first, the socket is closed at once. A caller that still uses a pipe end finds it ended. The socket refuses calls
/// after its close.
/// </para>
/// </remarks>
internal sealed partial class EvioConnection : ConnectionContext, IStreamHandler, IDuplexPipe, IThreadPoolWorkItem
{
    private static readonly bool FinOnError = AppContext.TryGetSwitch("Microsoft.AspNetCore.Server.Kestrel.FinOnError", out var set) && set;

    private static readonly TaskCompletionSource HasEnded = new();

    private readonly ConnectionSet _owner;
    private readonly ILogger _logger;
    private readonly CancellationTokenSource _connectionClosed = new();

    // The dispose that waits for the end, if there is one by then; HasEnded after the end. Completed on the thread pool, so that the
    // continuations need not be queued there.
    private TaskCompletionSource? _ended;

    // Why the connection ended, if it did not end with the peer's FIN alone. Set once, under the gate.
    private Exception? _endReason;
    private int _closedFired;

    // The number of ends to come: the socket's close, the firing of ConnectionClosed, and a send and a receive that are under way when the
    // socket is closed.
    private int _endsToCome = 2;

    // Guarded by the gate: whether all ends have come while the application still holds a pipe end.
    private bool _isInUseAfterEnd;

    internal EvioConnection(ConnectionSet owner, StreamSocket socket, EvioTransportOptions options, ILogger logger)
    {
        _owner = owner;
        _logger = logger;
        _transport = this;
        Socket = socket;
        var blocks = owner.BlocksOf(socket.Loop);
        MemoryPool = blocks.Pool;
        Input = new SocketPipeReader(this, blocks, options);
        Output = new SocketPipeWriter(this, blocks, options.MaxWriteBufferSize);
    }

    /// <summary>Guards the state of the reader, the writer and the connection. Never held during a system call or a callback.</summary>
    internal Lock Gate { get; } = new();

    /// <summary>
    /// Enters the gate to give back the sending or the receiving side, which no other thread could do. User code may have interrupted this
    /// thread: Thread.Interrupt ends the next wait for a lock.
    /// </summary>
    internal Lock.Scope EnterGateUninterrupted()
    {
        while (true)
        {
            try
            {
                return Gate.EnterScope();
            }
            catch (ThreadInterruptedException)
            {
                // The exception has used up the interruption.
            }
        }
    }

    internal StreamSocket Socket { get; }

    /// <summary>Whether the connection is outbound, and not accepted. To be set before the connection is used.</summary>
    internal bool IsOutbound { get; set; }

    internal SocketPipeReader Input { get; }

    internal SocketPipeWriter Output { get; }

    /// <summary>The monitor to which the reader is added when input is left in the kernel.</summary>
    internal UnreadInputMonitor UnreadInputMonitor => _owner.UnreadInputMonitorOf(Socket.Loop);

    PipeReader IDuplexPipe.Input => Input;

    PipeWriter IDuplexPipe.Output => Output;

    // ---- Events of the socket, on its loop ----

    void IStreamHandler.OnReady(ReadyEvents events)
    {
        // EPIPE is a reset that follows the peer's FIN. What came before the FIN is still to be read, and the next send meets the same
        // error.
        if ((events & ReadyEvents.Error) != 0 && Socket.TakeError() is var error and not (SocketError.Success or SocketError.Shutdown))
        {
            // A reset is final, however much is still unread or unsent. The reader gets it before ConnectionClosed fires. Kestrel then ends
            // the connection without a reason, and that would be taken for the reason otherwise.
            OnReceiveFailed(ToException(error));
            return;
        }

        bool send;
        ReadyAction action;
        lock (Gate)
        {
            send = Output.Note(events);
            action = Input.Note(events);
        }

        switch (action)
        {
            case ReadyAction.ReadAhead:
                Input.ReadAhead();
                break;
            case ReadyAction.MonitorUnread:
                UnreadInputMonitor.Add(Input);
                break;
        }

        if (send)
        {
            // User code that continues after a flush in there may wait for the very input that is to be delivered here.
            if (action == ReadyAction.CompleteRead && Socket.Loop.TryPost(Input))
            {
                action = ReadyAction.None;
            }

            Output.Send();
        }

        if (action == ReadyAction.CompleteRead)
        {
            Socket.Loop.Invoke(Input);
        }
    }

    void IStreamHandler.OnLoopStopping() => Abort(new ConnectionAbortedException("The connection's event loop was stopped."));

    void IStreamHandler.OnClosed()
    {
        // The connection has its reason already, unless the loop has closed it because the handling of an event failed.
        var reason = new ConnectionAbortedException("The connection was closed by its event loop.");
        Input.Fail(reason);
        Input.Close();
        Output.Close();
        UnreadInputMonitor.Remove(Input);
        FireConnectionClosed();
        SignalEndOnPool();
    }

    internal void OnReadAheadPaused() => Log.ConnectionPause(_logger, this);

    internal void OnReadAheadResumed() => Log.ConnectionResume(_logger, this);

    internal Exception ToException(SocketError error)
    {
        if (_endReason is { } reason)
        {
            return reason;
        }

        var inner = new SocketException((int)error);
        return error switch
        {
            // EPIPE: a reset whose own error was collected by an earlier call.
            SocketError.ConnectionReset or SocketError.Shutdown => new ConnectionResetException(inner.Message, inner),
            SocketError.OperationAborted => new ConnectionAbortedException("The connection is closed.", inner),
            _ => new IOException(inner.Message, inner),
        };
    }
}
