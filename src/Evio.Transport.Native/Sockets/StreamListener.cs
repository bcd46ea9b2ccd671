using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native;

/// <summary>Accepts stream connections on all loops of a group and hands each to the loop that will own it.</summary>
/// <remarks>All members may be used from any thread.</remarks>
public sealed class StreamListener : IServerListener, IAsyncDisposable
{
    private readonly EventLoopGroup _group;
    private readonly Action<StreamSocket> _onAccepted;
    private readonly StreamListenerOptions _options;
    private readonly ListenSockets _sockets;
    private readonly ListenSocket[] _listening;
    private readonly ConnectionsInTransit _inTransit;
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _closing;

    // The number of open listening sockets, and of connections on their way to their loop. At 0 nothing more will be accepted.
    private int _active;

    // The number of listening sockets that cannot accept at the moment. An episode begins when it leaves 0, and ends when it is 0 again.
    private int _failing;

    private StreamListener(EventLoopGroup group, ListenSockets sockets, Action<StreamSocket> onAccepted, StreamListenerOptions options)
    {
        _group = group;
        _sockets = sockets;
        _onAccepted = onAccepted;
        _options = options;
        _inTransit = new ConnectionsInTransit(group.Loops.Count, options.Backlog);

        // If there is a single descriptor, one loop watches it and hands over the connections that it accepts.
        _listening = [.. sockets.Descriptors.Select((descriptor, i) => new ListenSocket(this, group.Loops[i], descriptor, options.StartPaused))];
        _active = _listening.Length;
    }

    /// <summary>The bound address, with the port that the kernel chose.</summary>
    public EndPoint LocalEndPoint => _sockets.EndPoint;

    /// <summary>
    /// Stops accepting connections; they wait in the backlog meanwhile. Each loop stops when it runs the posted call, which may be after
    /// this method has returned. Has no effect on a paused listener.
    /// </summary>
    public void Pause() => Post(static socket => ((ListenSocket)socket!).Pause());

    /// <summary>Resumes accepting after <see cref="Pause"/>.</summary>
    public void Resume() => Post(static socket => ((ListenSocket)socket!).Resume());

    /// <summary>
    /// Stops listening. The connections in the backlog at this moment are accepted first, because for their clients they are established.
    /// The file of a Unix-domain socket is removed.
    /// </summary>
    /// <returns>
    /// A task that completes when the last accepted connection has been given to its loop and all descriptors are closed.
    /// </returns>
    public Task CloseAsync()
    {
        if (Interlocked.Exchange(ref _closing, 1) == 0)
        {
            Post(static socket => ((ListenSocket)socket!).Close());
        }

        return _closed.Task;
    }

    /// <inheritdoc cref="CloseAsync"/>
    public ValueTask DisposeAsync() => new(CloseAsync());

    internal static async Task<StreamListener> StartAsync(
        EventLoopGroup group, ListenSockets sockets, Action<StreamSocket> onAccepted, StreamListenerOptions options)
    {
        var listener = new StreamListener(group, sockets, onAccepted, options);
        try
        {
            await Task.WhenAll(listener._listening.Select(static socket => socket.StartAsync())).ConfigureAwait(false);
            return listener;
        }
        catch
        {
            await listener.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    internal bool OwnsDescriptors => _sockets.OwnsDescriptors;

    internal bool IsClosing => Volatile.Read(ref _closing) != 0;

    /// <summary>Moves a listening socket from a failed loop to another one. On the failed loop.</summary>
    /// <returns>False when there is no other loop, when the loop ends without a failure, or when the listener is closing.</returns>
    internal bool TryMove(ListenSocket socket) =>
        socket.Loop.HasFailed && !IsClosing && _group.Loops.Any(loop => !loop.HasEnded && socket.TryMoveTo(loop));

    internal void RemoveSocketFile() => SocketFiles.Remove(_sockets.SocketFile);

    /// <summary>Gives a connection to the loop that the balancer chooses. On the accepting loop.</summary>
    internal void HandOver(EventLoop accepting, int descriptor, ReadOnlySpan<byte> remoteAddress)
    {
        var owner = _group.Balancer.Assign(_listening.Length == _group.Loops.Count ? accepting : null, accepting, _inTransit);
        var socket = new StreamSocket(owner, descriptor, LocalEndPoint, SocketAddressBytes.From(remoteAddress));
        if (owner == accepting)
        {
            Deliver(socket);
            return;
        }

        Interlocked.Increment(ref _active);
        var handOver = (this, socket);
        if (!owner.TryPostWhileEnding(static state =>
            {
                var (listener, socket) = ((StreamListener, StreamSocket))state!;
                listener._inTransit.End(socket.Loop);
                listener.Deliver(socket);
                listener.Release();
            }, handOver))
        {
            _inTransit.End(owner);
            socket.Close();
            Release();
        }
    }

    private void Deliver(StreamSocket socket)
    {
        try
        {
            _onAccepted(socket);
        }
        catch (Exception exception)
        {
            socket.Close();
            socket.Loop.Report(exception);
        }

        // The next connection of the batch must not see the state that this callback has left.
        AmbientState.Restore();
    }

    /// <summary>Notes that a listening socket has become unable to accept.</summary>
    internal void Failing(SocketException reason)
    {
        if (Interlocked.Increment(ref _failing) == 1)
        {
            _group.Notifications.Call(
                static told => told.listener._options.OnAcceptFailing?.Invoke(told.listener, told.reason), (listener: this, reason));
        }
    }

    /// <summary>Notes that a listening socket accepts again after <see cref="Failing"/>.</summary>
    internal void Recovered()
    {
        if (Interlocked.Decrement(ref _failing) == 0)
        {
            _group.Notifications.Call(_options.OnAcceptRecovered, this);
        }
    }

    internal void Release()
    {
        if (Interlocked.Decrement(ref _active) == 0)
        {
            _closed.SetResult();
        }
    }

    private void Post(Action<object?> callback)
    {
        foreach (var socket in _listening)
        {
            // A loop that has ended has closed its listening socket.
            _ = socket.Loop.TryPostWhileEnding(callback, socket);
        }
    }
}
