using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Evio.Transport;

/// <summary>
/// A bound end point. The loops put accepted connections into a queue, from which the one caller of <see cref="AcceptAsync"/> takes them.
/// </summary>
internal sealed class EvioConnectionListener : IConnectionListener
{
    private readonly EvioTransportOptions _options;
    private readonly ILogger _logger;
    private readonly TransportLoops _loops;
    private readonly ConnectionSet _connections;

    // What follows is guarded by this.
    private readonly Lock _lock = new();
    private readonly Queue<EvioConnection> _accepted = new();

    // The accept that waits, or has waited last.
    private PendingAccept? _accept;
    private bool _acceptWaits;
    private bool _paused;
    private bool _unbound;

    // Why no loop is left that could accept.
    private Exception? _failure;

    private CancellationTokenRegistration _onFailed;
    private StreamListener? _listener;

    private EvioConnectionListener(TransportLoops loops)
    {
        _options = loops.Options;
        _logger = loops.Logger;
        _loops = loops;
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
            // As on the Sockets transport, a file handle belongs to its creator, which may use it further, and closes it.
            listener._listener = endPoint is FileHandleEndPoint handle
                ? await group.ListenOnDescriptorAsync(checked((int)handle.FileHandle), ownsDescriptor: false, listener.OnAccepted, listenerOptions).ConfigureAwait(false)
                : await group.ListenAsync(endPoint, listener.OnAccepted, listenerOptions).ConfigureAwait(false);
            listener._onFailed = loops.Failed.UnsafeRegister(static listener => ((EvioConnectionListener)listener!).OnLoopsFailed(), listener);
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
                    // Posted under the lock, as the pause is, so that the loops see both in the order of the decisions.
                    _paused = false;
                    _listener!.Resume();
                }

                return new ValueTask<ConnectionContext?>(connection);
            }

            if (_failure is not null)
            {
                return ValueTask.FromException<ConnectionContext?>(_failure);
            }

            if (!_unbound)
            {
                if (_accept is not { IsFree: true })
                {
                    _accept = new PendingAccept(this);
                }

                _acceptWaits = true;
                return _accept.Begin(cancellationToken);
            }
        }

        return new ValueTask<ConnectionContext?>((ConnectionContext?)null);
    }

    public async ValueTask UnbindAsync(CancellationToken cancellationToken = default)
    {
        // The backlog is accepted first, because its clients have been told that they are connected. When the server has no more time (a
        // blocked handler holds a loop), it continues without waiting. DisposeAsync aborts connections that are accepted after that.
        var closed = _listener!.CloseAsync();
        await closed.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (closed.IsFaulted)
        {
            await closed.ConfigureAwait(false);
        }

        PendingAccept? waiting;
        lock (_lock)
        {
            if (_unbound)
            {
                return;
            }

            _unbound = true;
            waiting = TryEndAccept(null);
        }

        waiting?.Execute();
    }

    /// <summary>Unbinds, aborts the connections that are still open, and releases the memory when the last of them has ended.</summary>
    /// <remarks>
    /// The server has no more time for handlers by then. So this does not wait for a handler that holds its loop
    /// (<see cref="LoopScheduling.Inline"/>): what is left is done when the handler returns.
    /// </remarks>
    public ValueTask DisposeAsync() => _loops.WaitUnlessHeldAsync(DisposeCoreAsync());

    private async Task DisposeCoreAsync()
    {
        _onFailed.Unregister();
        await UnbindAsync().ConfigureAwait(false);

        EvioConnection[] neverAccepted;
        lock (_lock)
        {
            neverAccepted = [.. _accepted];
            _accepted.Clear();
        }

        _connections.Abort("The connection was aborted because its listener is disposed.");

        // No other code will give their buffers back.
        foreach (var connection in neverAccepted)
        {
            await connection.DisposeAsync().ConfigureAwait(false);
        }

        await _connections.EndAsync().ConfigureAwait(false);
    }

    /// <summary>Reports to the server that nothing will be accepted any more, when the last loop has failed.</summary>
    private void OnLoopsFailed()
    {
        PendingAccept? waiting;
        lock (_lock)
        {
            _failure = new InvalidOperationException("No event loop is left that could accept connections.", _loops.Failure);
            waiting = TryEndAccept(null, _failure);
        }

        waiting?.Execute();
    }

    /// <summary>Starts a connection. On the loop that owns it.</summary>
    private void OnAccepted(StreamSocket socket)
    {
        var connection = new EvioConnection(_connections, socket, _options, _logger);
        connection.Input.FirstReadOnLoop = _options.Scheduling != LoopScheduling.ThreadPool;
        socket.Start(connection);
        _connections.Add(connection);

        PendingAccept? waiting;
        lock (_lock)
        {
            waiting = TryEndAccept(connection);
            if (waiting is null)
            {
                _accepted.Enqueue(connection);
                if (!_paused && _listener is not null && _accepted.Count >= _options.Backlog)
                {
                    // The server does not keep up. Further connections wait in the kernel's backlog.
                    _paused = true;
                    _listener.Pause();
                }

                return;
            }
        }

        // This continues the server's accept loop, which starts each connection on the thread pool (as Kestrel's does).
        socket.Loop.Invoke(waiting);
    }

    /// <summary>Ends the accept that waits. Under the lock.</summary>
    /// <returns>The operation that the caller has to complete; null when no accept waits.</returns>
    private PendingAccept? TryEndAccept(EvioConnection? result, Exception? failure = null)
    {
        if (!_acceptWaits)
        {
            return null;
        }

        _acceptWaits = false;
        _accept!.End(result, failure);
        return _accept;
    }

    internal void OnTokenCancelled(PendingAccept accept)
    {
        lock (_lock)
        {
            // A delayed callback of an earlier accept's token has no effect.
            if (accept != _accept || !accept.IsCancellationRequested || TryEndAccept(null) is null)
            {
                return;
            }
        }

        accept.Complete(null, accept.Cancellation());
    }
}
