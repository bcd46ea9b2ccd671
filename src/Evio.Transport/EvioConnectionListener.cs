using System.Net;
using System.Net.Sockets;
using System.Threading.Tasks.Sources;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Evio.Transport;

/// <summary>
/// A bound end point: the loops put accepted connections into a queue, from which the one caller of <see cref="AcceptAsync"/> takes them.
/// </summary>
internal sealed class EvioConnectionListener : IConnectionListener, IValueTaskSource<ConnectionContext?>, ILoopCall
{
    private readonly EvioTransportOptions _options;
    private readonly ILogger _logger;
    private readonly ConnectionSet _connections;

    // What follows is guarded by this.
    private readonly Lock _lock = new();
    private readonly Queue<EvioConnection> _accepted = new();
    private ManualResetValueTaskSourceCore<ConnectionContext?> _accept;
    private CancellationToken _acceptToken;
    private CancellationTokenRegistration _acceptCancellation;
    private bool _acceptWaits;

    // What the accept that waited will return.
    private EvioConnection? _acceptResult;
    private bool _paused;
    private bool _unbound;

    private StreamListener? _listener;

    private EvioConnectionListener(TransportLoops loops)
    {
        _options = loops.Options;
        _logger = loops.Logger;
        _connections = new ConnectionSet(loops);
    }

    public EndPoint EndPoint => _listener!.LocalEndPoint;

    internal static async Task<EvioConnectionListener> BindAsync(TransportLoops loops, EndPoint endPoint)
    {
        var (group, options, logger) = (loops.Group, loops.Options, loops.Logger);
        var listener = new EvioConnectionListener(loops);
        var failures = loops.CreateEpisodes<SocketException>(
            reason => Log.AcceptFailing(logger, listener._listener?.LocalEndPoint ?? endPoint, reason),
            () => Log.AcceptRecovered(logger, listener._listener?.LocalEndPoint ?? endPoint),
            "AcceptFailing");
        var listenerOptions = new StreamListenerOptions
        {
            Backlog = options.Backlog,
            NoDelay = options.NoDelay,
            SharePort = options.SharePort,
            UnixSocketMode = options.UnixSocketMode,
            OnAcceptFailing = (_, reason) => failures.Begin(reason),
            OnAcceptRecovered = _ => failures.End(),
        };

        try
        {
            // As on the Sockets transport a file handle stays its creator's, who may have more plans for it, and closes it.
            listener._listener = endPoint is FileHandleEndPoint handle
                ? await group.ListenOnDescriptorAsync(checked((int)handle.FileHandle), ownsDescriptor: false, listener.OnAccepted, listenerOptions).ConfigureAwait(false)
                : await group.ListenAsync(endPoint, listener.OnAccepted, listenerOptions).ConfigureAwait(false);
            return listener;
        }
        catch
        {
            await listener._connections.EndAsync().ConfigureAwait(false);
            throw;
        }
    }

    public ValueTask<ConnectionContext?> AcceptAsync(CancellationToken cancellationToken = default)
    {
        if (cancellationToken.IsCancellationRequested)
        {
            return ValueTask.FromCanceled<ConnectionContext?>(cancellationToken);
        }

        lock (_lock)
        {
            if (_acceptWaits)
            {
                throw new InvalidOperationException("Another accept is pending.");
            }

            if (_accepted.TryDequeue(out var connection))
            {
                if (_paused && _accepted.Count <= _options.Backlog / 2)
                {
                    // Posted under the lock, as the pause is: the loops see both in the order of the decisions.
                    _paused = false;
                    _listener!.Resume();
                }

                return new ValueTask<ConnectionContext?>(connection);
            }

            if (!_unbound)
            {
                _acceptWaits = true;
                _acceptToken = cancellationToken;
                _accept.Reset();
                if (cancellationToken.CanBeCanceled)
                {
                    _acceptCancellation = cancellationToken.UnsafeRegister(
                        static (listener, token) => ((EvioConnectionListener)listener!).CancelAccept(token), this);
                }

                return new ValueTask<ConnectionContext?>(this, _accept.Version);
            }
        }

        return new ValueTask<ConnectionContext?>((ConnectionContext?)null);
    }

    public async ValueTask UnbindAsync(CancellationToken cancellationToken = default)
    {
        // Its backlog is accepted first, so that nobody is turned away who has been told that he is connected. When the server has no more time (a
        // loop is held by a handler that blocks) it goes on without waiting; what is accepted after that is aborted by DisposeAsync.
        var closed = _listener!.CloseAsync();
        await closed.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (closed.IsFaulted)
        {
            await closed.ConfigureAwait(false);
        }

        lock (_lock)
        {
            if (_unbound)
            {
                return;
            }

            _unbound = true;
            if (!_acceptWaits)
            {
                return;
            }

            _acceptWaits = false;
        }

        _acceptCancellation.Unregister();
        _accept.SetResult(null);
    }

    /// <summary>Unbinds, aborts the connections that are still open, and gives the memory back when the last of them has ended.</summary>
    public async ValueTask DisposeAsync()
    {
        await UnbindAsync().ConfigureAwait(false);

        EvioConnection[] neverAccepted;
        lock (_lock)
        {
            neverAccepted = [.. _accepted];
            _accepted.Clear();
        }

        _connections.Abort("The connection was aborted because its listener is disposed.");

        // Nobody else will give their buffers back.
        foreach (var connection in neverAccepted)
        {
            await connection.DisposeAsync().ConfigureAwait(false);
        }

        await _connections.EndAsync().ConfigureAwait(false);
    }

    /// <summary>Starts a connection. On the loop that owns it.</summary>
    private void OnAccepted(StreamSocket socket)
    {
        var connection = new EvioConnection(_connections, socket, _options, _logger);
        connection.Input.BeginsOnLoop = _options.Scheduling != EvioScheduling.ThreadPool;
        socket.Start(connection);
        _connections.Add(connection);

        lock (_lock)
        {
            if (_acceptWaits)
            {
                _acceptWaits = false;
            }
            else
            {
                _accepted.Enqueue(connection);
                if (!_paused && _listener is not null && _accepted.Count >= _options.Backlog)
                {
                    // The server does not keep up. The others wait in the kernel's backlog.
                    _paused = true;
                    _listener.Pause();
                }

                return;
            }
        }

        // The server's accept loop, which starts each connection on the thread pool (as Kestrel's does).
        _acceptResult = connection;
        socket.Loop.Invoke(this);
    }

    void IThreadPoolWorkItem.Execute()
    {
        var connection = _acceptResult;
        _acceptResult = null;
        _acceptCancellation.Unregister();
        _accept.SetResult(connection);
    }

    /// <summary>Whatever it costs, new connections do not wait for a processor behind handlers.</summary>
    LoopCallCost ILoopCall.Cost
    {
        get => LoopCallCost.Brief;
        set
        {
        }
    }

    void ILoopCall.Run() => ((IThreadPoolWorkItem)this).Execute();

    void ILoopCall.OnOverdue()
    {
        // Nothing is kept back for the end of it.
    }

    private void CancelAccept(CancellationToken token)
    {
        lock (_lock)
        {
            // A late callback of an earlier accept's token has no say.
            if (!_acceptWaits || _acceptToken != token)
            {
                return;
            }

            _acceptWaits = false;
        }

        _accept.SetException(new OperationCanceledException(token));
    }

    ConnectionContext? IValueTaskSource<ConnectionContext?>.GetResult(short token) => _accept.GetResult(token);

    ValueTaskSourceStatus IValueTaskSource<ConnectionContext?>.GetStatus(short token) => _accept.GetStatus(token);

    void IValueTaskSource<ConnectionContext?>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _accept.OnCompleted(continuation, state, token, flags);
}
