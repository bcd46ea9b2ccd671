using Evio.Transport.Native;
using Evio.Transport.Pipes;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport;

/// <summary>
/// The open connections of a listener, or all outbound ones, and the pools of their buffers. The pools are disposed of when the last
/// connection has ended and the last block is back.
/// </summary>
internal sealed class ConnectionSet
{
    private readonly BlockSource[] _blocks;
    private readonly TransportLoops _loops;

    // What follows is guarded by this.
    private readonly Lock _lock = new();
    private readonly HashSet<EvioConnection> _open = [];
    private TaskCompletionSource? _allEnded;

    // The number of connections that have ended while the application still holds a pipe end, and blocks with it.
    private int _inUse;
    private bool _isOver;

    internal ConnectionSet(TransportLoops loops)
    {
        _loops = loops;

        // One per loop: its blocks stay with that loop's processor, and loops do not contend for them.
        _blocks = [.. loops.Group.Loops.Select(_ => new BlockSource(loops.CreatePool()))];
    }

    internal BlockSource BlocksOf(EventLoop loop) => _blocks[loop.Index];

    internal LogLimiter ClosedCallbackFailures => _loops.ClosedCallbackFailures;

    internal UnreadInputMonitor UnreadInputMonitorOf(EventLoop loop) => _loops.UnreadInputMonitors[loop.Index];

    internal void Add(EvioConnection connection)
    {
        lock (_lock)
        {
            _open.Add(connection);
        }
    }

    /// <param name="connection">A connection that has ended.</param>
    /// <param name="isInUse">Whether <see cref="OnReleased"/> follows.</param>
    internal void Remove(EvioConnection connection, bool isInUse)
    {
        lock (_lock)
        {
            _open.Remove(connection);
            _inUse += isInUse ? 1 : 0;
            if (_open.Count == 0)
            {
                _allEnded?.TrySetResult();
            }
        }
    }

    internal void Abort(string reason)
    {
        EvioConnection[] open;
        lock (_lock)
        {
            open = [.. _open];
        }

        foreach (var connection in open)
        {
            connection.Abort(new ConnectionAbortedException(reason));
        }
    }

    /// <summary>
    /// Notes that the application has completed both pipe ends of a connection that had ended before: all of its blocks are back.
    /// </summary>
    internal void OnReleased()
    {
        lock (_lock)
        {
            // This call may come before the connection is removed.
            _inUse--;
            if (!_isOver || _inUse > 0)
            {
                return;
            }
        }

        DisposePools();
    }

    /// <summary>
    /// Waits for the end of the last connection, and disposes of the pools; or leaves that to the last connection whose blocks are still in
    /// use. No connection may be added any more.
    /// </summary>
    internal async Task EndAsync()
    {
        Task allEnded;
        lock (_lock)
        {
            _allEnded ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            if (_open.Count == 0)
            {
                _allEnded.TrySetResult();
            }

            allEnded = _allEnded.Task;
        }

        await allEnded.ConfigureAwait(false);
        lock (_lock)
        {
            if (_isOver)
            {
                return;
            }

            _isOver = true;
            if (_inUse > 0)
            {
                return;
            }
        }

        DisposePools();
    }

    private void DisposePools()
    {
        foreach (var blocks in _blocks)
        {
            blocks.Pool.Dispose();
        }
    }
}
