using Evio.Transport.Native;
using Evio.Transport.Pipes;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport;

/// <summary>The open connections of a listener, or all outbound ones, and the pools of their buffers, which end after the last of them.</summary>
internal sealed class ConnectionSet
{
    private readonly BlockSource[] _blocks;
    private readonly TransportLoops _loops;

    // What follows is guarded by this.
    private readonly Lock _lock = new();
    private readonly HashSet<EvioConnection> _open = [];
    private TaskCompletionSource? _allEnded;
    private bool _poolsDisposed;

    internal ConnectionSet(TransportLoops loops)
    {
        _loops = loops;

        // One per loop: its blocks stay with that loop's processor, and loops do not contend for them.
        _blocks = [.. loops.Group.Loops.Select(_ => new BlockSource(loops.CreatePool()))];
    }

    internal BlockSource BlocksOf(EventLoop loop) => _blocks[loop.Index];

    internal LogLimiter ClosedCallbackFailures => _loops.ClosedCallbackFailures;

    internal UnreadInputWatch WatchOf(EventLoop loop) => _loops.UnreadInputWatches[loop.Index];

    internal void Add(EvioConnection connection)
    {
        lock (_lock)
        {
            _open.Add(connection);
        }
    }

    internal void Remove(EvioConnection connection)
    {
        lock (_lock)
        {
            _open.Remove(connection);
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

    /// <summary>Waits for the end of the last connection, and gives the pools back. No connection may be added any more.</summary>
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
            if (_poolsDisposed)
            {
                return;
            }

            _poolsDisposed = true;
        }

        foreach (var blocks in _blocks)
        {
            blocks.Pool.Dispose();
        }
    }
}
