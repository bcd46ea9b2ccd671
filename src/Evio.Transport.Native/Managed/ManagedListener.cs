using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Managed;

/// <summary>Accepts stream connections with the BCL's <see cref="Socket"/> and hands each to the loop that the balancer names.</summary>
[SuppressMessage("Design", "CA1001", Justification = "A cancellation source without a timer or wait handle holds nothing to dispose of.")]
internal sealed class ManagedListener : IServerListener
{
    /// <summary>
    /// The number of accepts that may fail one after the other, each with an error of its connection, before the listener backs off.
    /// </summary>
    private const int MaxFailures = 64;

    private static readonly TimeSpan BackOff = TimeSpan.FromMilliseconds(100);

    private readonly EvioServer _server;
    private readonly int _addressIndex;
    private readonly Socket _socket;
    private readonly SocketFile? _socketFile;
    private readonly CancellationTokenSource _closing = new();
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    // The number of further connections that may be in transit to all loops. While it is more than 0, some loop has room.
    private readonly SemaphoreSlim _room;
    private readonly ConnectionsInTransit _inTransit;
    private State _state;
    private int _failures;

    // Counts the listening itself, and the connections in transit to their loop. At 0 nothing more will be opened.
    private int _active = 1;

    private ManagedListener(EvioServer server, int addressIndex, Socket socket, EndPoint endPoint, SocketFile? socketFile)
    {
        _server = server;
        _addressIndex = addressIndex;
        _socket = socket;
        LocalEndPoint = endPoint;
        _socketFile = socketFile;
        var backlog = new StreamListenerOptions().Backlog;
        _room = new SemaphoreSlim(backlog * server.NumLoops);
        _inTransit = new ConnectionsInTransit(server.NumLoops, backlog);
    }

    private enum State
    {
        Bound,
        Accepting,
        Closing,
    }

    public EndPoint LocalEndPoint { get; }

    internal static Task<IServerListener> BindAsync(EvioServer server, EvioAddress address, int index)
    {
        if (address.EndPoint is not UnixDomainSocketEndPoint unix)
        {
            var socket = ManagedSockets.Bind(address, SocketType.Stream, address.EndPoint);
            return Task.FromResult<IServerListener>(Listen(server, address, index, socket, null));
        }

        return Task.FromResult<IServerListener>(BindUnix(server, address, index, unix));
    }

    private static ManagedListener BindUnix(EvioServer server, EvioAddress address, int index, UnixDomainSocketEndPoint unix)
    {
        var endPoint = new SocketFileEndPoint(unix);
        Socket? socket = null;
        var file = SocketFiles.PathOf(unix) is { } path ? SocketFiles.Make(path, Bind) : null;
        if (file is null)
        {
            Bind();
        }

        endPoint.IsBound = true;
        return Listen(server, address, index, socket!, file);

        void Bind() => socket = ManagedSockets.Bind(address, SocketType.Stream, endPoint);
    }

    private static ManagedListener Listen(EvioServer server, EvioAddress address, int index, Socket socket, SocketFile? file)
    {
        try
        {
            socket.Listen(new StreamListenerOptions().Backlog);
            return new ManagedListener(server, index, socket, address.EndPoint is UnixDomainSocketEndPoint unix ? unix : socket.LocalEndPoint!, file);
        }
        catch (SocketException exception)
        {
            // Linux reports some busy ports only now (listen(2)).
            SocketFiles.Remove(file);
            socket.Dispose();
            throw SocketDescriptors.BindException(exception.SocketErrorCode, address.EndPoint);
        }
    }

    public void Resume()
    {
        if (Interlocked.CompareExchange(ref _state, State.Accepting, State.Bound) == State.Bound)
        {
            _ = RunAsync();
        }
    }

    public Task CloseAsync()
    {
        switch (Interlocked.Exchange(ref _state, State.Closing))
        {
            case State.Bound:
                End();
                break;
            case State.Accepting:
                // RunAsync ends. Not from within this call, whose caller may be in a callback.
                _ = _closing.CancelAsync();
                break;
        }

        return _closed.Task;
    }

    private async Task RunAsync()
    {
        try
        {
            while (!_closing.IsCancellationRequested)
            {
                await AcceptAsync().ConfigureAwait(false);
            }

            AcceptRest();
        }
        catch (Exception exception)
        {
            // A defect: nothing that a peer or the system does leads here.
            _server.Fail(exception);
        }
        finally
        {
            End();
        }
    }

    private async Task AcceptAsync()
    {
        var isRoomTaken = false;
        try
        {
            // Before the accept, so that connections that no loop takes wait in the backlog.
            await _room.WaitAsync(_closing.Token).ConfigureAwait(false);
            isRoomTaken = true;
            var accepted = await _socket.AcceptAsync(_closing.Token).ConfigureAwait(false);
            isRoomTaken = false;
            _failures = 0;
            HandOver(accepted);
        }
        catch (OperationCanceledException)
        {
            // Closing.
        }
        catch (SocketException exception) when (IsOfOneConnection(exception.SocketErrorCode) && ++_failures < MaxFailures)
        {
            // This connection is lost. The next one may be fine.
        }
        catch (SocketException)
        {
            // Out of descriptors or memory, most likely: the connections wait in the backlog meanwhile.
            _failures = 0;
            _server.Loops[0].Meter.AcceptFailed();
            await BackOffAsync().ConfigureAwait(false);
        }
        finally
        {
            if (isRoomTaken)
            {
                _room.Release();
            }
        }
    }

    /// <summary>
    /// Waits for <see cref="BackOff"/>, or until the listener closes. On a loop's timer, because without descriptors the runtime cannot
    /// start the thread of its own timers.
    /// </summary>
    private async Task BackOffAsync()
    {
        var over = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var registration = _closing.Token.UnsafeRegister(static over => ((TaskCompletionSource)over!).TrySetResult(), over);
        var timer = _server.Loops[0].ScheduleInternal(BackOff, static over => ((TaskCompletionSource)over!).TrySetResult(), over);
        await over.Task.ConfigureAwait(false);
        timer.Cancel();
    }

    /// <summary>
    /// Accepts the backlog. Its connections are established from their clients' point of view, and closing would reset them.
    /// </summary>
    private void AcceptRest()
    {
        try
        {
            _socket.Blocking = false;
            for (var i = 0; i <= StreamListenerOptions.MaxBacklog && _socket.Poll(TimeSpan.Zero, SelectMode.SelectRead); i++)
            {
                HandOver(_socket.Accept());
            }
        }
        catch (SocketException)
        {
            // There is no further attempt.
        }
    }

    private void End()
    {
        // While the socket still listens, so that no other server takes the file for a stale one.
        SocketFiles.Remove(_socketFile);
        _socket.Dispose();
        Release();
    }

    private void HandOver(Socket accepted)
    {
        var owner = _server.Group.Balancer.Assign(inTransit: _inTransit);
        ManagedStreamSocket socket;
        try
        {
            if (accepted.AddressFamily != AddressFamily.Unix)
            {
                accepted.NoDelay = true;
            }

            socket = new ManagedStreamSocket(owner, accepted);
        }
        catch (SocketException)
        {
            // The connection was reset before it was accepted. Some systems report that at the first call.
            owner.ConnectionRemoved();
            EndHandOver(owner);
            accepted.Dispose();
            return;
        }

        // No loop has accepted the connection, so its owner counts it.
        owner.Meter.Accepted();
        Interlocked.Increment(ref _active);
        if (!owner.TryPostWhileEnding(
                static state =>
                {
                    var (listener, socket) = ((ManagedListener, ManagedStreamSocket))state!;
                    listener.EndHandOver(socket.Loop);
                    try
                    {
                        listener.Deliver(socket);
                    }
                    finally
                    {
                        listener.Release();
                    }
                },
                (this, socket)))
        {
            EndHandOver(owner);
            socket.Close();
            Release();
        }
    }

    private void EndHandOver(EventLoop owner)
    {
        _inTransit.End(owner);
        _room.Release();
    }

    private void Deliver(ManagedStreamSocket socket)
    {
        try
        {
            _ = _server.LoopOf(socket.Loop).Open(socket, _addressIndex);
        }
        catch
        {
            socket.Close();
            throw;
        }
    }

    private static bool IsOfOneConnection(SocketError error) =>
        error is SocketError.ConnectionAborted or SocketError.ConnectionReset or SocketError.Interrupted;

    private void Release()
    {
        if (Interlocked.Decrement(ref _active) == 0)
        {
            _closed.SetResult();
        }
    }

    /// <summary>
    /// A Unix-domain address whose file the BCL does not remove. It would do so after the close, when a successor may have bound there.
    /// </summary>
    private sealed class SocketFileEndPoint(UnixDomainSocketEndPoint endPoint) : EndPoint
    {
        /// <summary>
        /// Whether the socket is bound. From then on, the BCL takes this address as the measure for the addresses of peers
        /// (<see cref="Socket.AcceptAsync()"/>). A peer's address may be longer, and the BCL fails on one that is.
        /// </summary>
        internal bool IsBound { get; set; }

        public override AddressFamily AddressFamily => endPoint.AddressFamily;

        public override SocketAddress Serialize() => IsBound ? new SocketAddress(AddressFamily.Unix) : endPoint.Serialize();

        public override EndPoint Create(SocketAddress socketAddress) => endPoint.Create(socketAddress);

        public override string ToString() => endPoint.ToString();
    }
}
