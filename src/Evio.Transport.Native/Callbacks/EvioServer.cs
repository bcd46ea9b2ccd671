using System.Net;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Managed;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native;

/// <summary>A running server of the callback API: it serves its addresses with the callbacks of <see cref="Events"/>.</summary>
/// <remarks>
/// <para>
/// Addresses are written <c>scheme://where</c>: <c>tcp://127.0.0.1:5000</c>, <c>tcp4://:5000</c>, <c>tcp6://[::1]:5000</c>,
/// <c>udp://:5000</c>, <c>unix:///tmp/socket</c>, and on Linux <c>unix://@name</c> for an abstract address (unix(7)). Port 0 takes any free
/// port. An empty host stands for all addresses. A scheme with the suffix <c>-net</c> (<c>tcp-net://...</c>) runs on
/// <see cref="System.Net.Sockets"/> instead of the poller, as all schemes do where there is no poller. <c>?reuseport=true</c> lets other
/// processes bind the same port.
/// </para>
/// <para>All members may be used from any thread.</para>
/// </remarks>
public sealed partial class EvioServer : IAsyncDisposable
{
    private static readonly TimeSpan MaxListenerWait = TimeSpan.FromSeconds(1);

    private readonly EventLoopGroup _group;
    private readonly ServerLoop[] _loops;
    private readonly List<IServerListener> _listeners = [];
    private readonly CancellationTokenSource _stoppingToken = new();
    private readonly TaskCompletionSource _deadlineEnded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _stopping;
    private volatile bool _serving;
    private Exception? _failure;

    private EvioServer(Events events, EventLoopGroup group)
    {
        Events = events;
        _group = group;
        _loops = [.. group.Loops.Select(loop => new ServerLoop(this, loop))];
    }

    /// <summary>The bound addresses, in the order of those given, with the ports that the system chose.</summary>
    public IReadOnlyList<EndPoint> Addresses => [.. _listeners.Select(static listener => listener.LocalEndPoint)];

    /// <summary>The number of loops.</summary>
    public int NumLoops => _loops.Length;

    /// <summary>The loops, with their numbers of connections.</summary>
    public IReadOnlyList<EventLoop> Loops => _group.Loops;

    /// <summary>
    /// Completes when the server has stopped, everything is closed and its threads have ended. Fails with an exception of
    /// <see cref="Events.Serving"/>, <see cref="Events.Tick"/>, a posted call or a timer, or with the reason for which a loop has failed.
    /// </summary>
    /// <remarks>
    /// After the deadline of the stop, the server does not wait for user code any more: this completes even if a callback still runs. When
    /// the callback returns, its thread ends, and with <see cref="LoopScheduling.Inline"/> the other connections of its loop end as well.
    /// </remarks>
    public Task Completion => _completion.Task;

    internal Events Events { get; }

    internal EventLoopGroup Group => _group;

    /// <summary>Serves until a callback returns <see cref="EvioAction.Shutdown"/>.</summary>
    /// <param name="events">The callbacks and the options. They must not be changed any more.</param>
    /// <param name="addresses">The addresses to serve; see the remarks of <see cref="EvioServer"/>.</param>
    /// <exception cref="ArgumentException">An address or an option cannot be used; the message says why.</exception>
    /// <exception cref="System.Net.Sockets.SocketException">An address cannot be bound: it is in use, for example.</exception>
    /// <remarks>This method throws an exception of <see cref="Events.Serving"/> or <see cref="Events.Tick"/>.</remarks>
    public static void Serve(Events events, params IReadOnlyList<string> addresses)
    {
        var server = StartAsync(events, addresses).GetAwaiter().GetResult();
        server.Completion.GetAwaiter().GetResult();
    }

    /// <summary>Starts to serve and returns.</summary>
    /// <param name="events">The callbacks and the options. They must not be changed any more.</param>
    /// <param name="addresses">The addresses to serve; see the remarks of <see cref="EvioServer"/>.</param>
    /// <returns>The server, when all addresses are bound and <see cref="Events.Serving"/> has returned.</returns>
    /// <exception cref="ArgumentException">An address or an option cannot be used; the message says why.</exception>
    /// <exception cref="System.Net.Sockets.SocketException">An address cannot be bound: it is in use, for example.</exception>
    public static async Task<EvioServer> StartAsync(Events events, params IReadOnlyList<string> addresses)
    {
        ArgumentNullException.ThrowIfNull(events);
        ArgumentNullException.ThrowIfNull(addresses);
        if (events.CloseTimeout < TimeSpan.Zero)
        {
            throw new ArgumentException($"{nameof(Events)}.{nameof(events.CloseTimeout)} is {events.CloseTimeout}; it must not be negative.", nameof(events));
        }

        if (events.Scheduling == LoopScheduling.ThreadPool)
        {
            throw new ArgumentException(
                $"{nameof(Events)}.{nameof(events.Scheduling)} is {events.Scheduling}; callbacks are made on the loops: {nameof(LoopScheduling.Inline)} or {nameof(LoopScheduling.Adaptive)}.",
                nameof(events));
        }

        var parsed = addresses.Select(EvioAddress.Parse).ToArray();
        var managed = !EventLoopGroup.IsSupported || (parsed.Length > 0 && parsed.All(static address => address.Managed));
        EvioServer? server = null;
        var group = new EventLoopGroup(
            new EventLoopGroupOptions
            {
                LoopCount = events.NumLoops,
                LoadBalance = events.LoadBalance,
                LoopAffinity = events.LoopAffinity,
                Scheduling = events.Scheduling,
                MaxBlockedThreads = events.MaxBlockedThreads,
                OnThreadsSaturated = events.ThreadsSaturated,
                OnUnhandledException = (_, exception) => server?.Fail(exception),
            },
            managed);
        server = new EvioServer(events, group);
        try
        {
            for (var i = 0; i < parsed.Length; i++)
            {
                server._listeners.Add(await server.ListenAsync(parsed[i], i).ConfigureAwait(false));
            }

            await server.BeginAsync().ConfigureAwait(false);
            return server;
        }
        catch (Exception exception)
        {
            server._failure ??= exception;
            server.Stop(TimeSpan.Zero);
            await server.Completion.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            throw;
        }
    }

    /// <summary>
    /// Connects to another server. The connection has the same callbacks as accepted connections, on one of the same loops.
    /// </summary>
    /// <param name="address">
    /// The address: <c>tcp tcp4 tcp6 unix</c>, with or without <c>-net</c>; an empty host stands for this machine. The addresses of a host
    /// name, those of the scheme's family, are tried in the order of the resolver's answer until one connects.
    /// </param>
    /// <param name="context">The value of <see cref="Connection.Context"/> before <see cref="Events.Opened"/>.</param>
    /// <param name="loop">
    /// The loop that will own the connection, one of <see cref="Loops"/>; <see langword="null"/> lets <see cref="Events.LoadBalance"/>
    /// choose.
    /// </param>
    /// <param name="cancellationToken">Ends the attempt, which is otherwise limited only by the system.</param>
    /// <returns>The connection, after its <see cref="Events.Opened"/>; its <see cref="Connection.AddressIndex"/> is −1.</returns>
    /// <exception cref="ArgumentException">
    /// The address cannot be used, which the message explains, or the loop is not of this server.
    /// </exception>
    /// <exception cref="System.Net.Sockets.SocketException">No server listens there, or it cannot be reached.</exception>
    /// <exception cref="OperationCanceledException"><paramref name="cancellationToken"/> was cancelled.</exception>
    /// <exception cref="ObjectDisposedException">The server is stopping.</exception>
    public async Task<Connection> DialAsync(
        string address, object? context = null, EventLoop? loop = null, CancellationToken cancellationToken = default)
    {
        var parsed = EvioAddress.ParseForDial(address);
        if (parsed.IsDatagram || parsed.ReusePort)
        {
            throw new ArgumentException(
                $"The address '{address}' cannot be dialled: only tcp, tcp4, tcp6 and unix can, without parameters.", nameof(address));
        }

        if (loop is not null && !Loops.Contains(loop))
        {
            throw new ArgumentException("The loop is not of this server.", nameof(loop));
        }

        using var cancellation = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _stoppingToken.Token);
        StreamConnection? connection = null;
        try
        {
            await (IsManaged(parsed)
                ? ManagedConnector.ConnectAsync(_group, loop, parsed.DialEndPoint, Open, cancellation.Token)
                : _group.ConnectAsync(parsed.DialEndPoint, Open, new StreamConnectOptions { Loop = loop }, cancellation.Token)).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // Throws if the caller's token was cancelled, and not only that of the stop.
            cancellationToken.ThrowIfCancellationRequested();
        }

        return connection ?? throw new ObjectDisposedException(nameof(EvioServer));

        void Open(IStreamChannel channel) => connection = LoopOf(channel.Loop).Open(channel, addressIndex: -1, context);
    }

    internal ServerLoop LoopOf(EventLoop loop) => _loops[loop.Index];

    /// <summary>Acts on the result of a callback without a connection, or of a last callback.</summary>
    internal void Handle(EvioAction action)
    {
        if (action == EvioAction.Shutdown)
        {
            Stop(Events.CloseTimeout);
        }
    }

    /// <summary>Reports an exception of a callback that ends nothing more than the connection or datagram of that callback.</summary>
    internal void Tell(Action<Connection, Exception>? receiver, Connection connection, Exception exception)
    {
        if (receiver is not null)
        {
            _group.Notifications.Call(static told => told.receiver(told.connection, told.exception), (receiver, connection, exception));
        }
        else
        {
            _group.Notifications.ReportOnce(exception);
        }
    }

    /// <summary>Stops the server for a reason that <see cref="Completion"/> will throw.</summary>
    internal void Fail(Exception exception)
    {
        _ = Interlocked.CompareExchange(ref _failure, exception, null);
        Stop(Events.CloseTimeout);
    }

    /// <summary>Whether an address is served with sockets of the BCL. A group without pollers can serve no other.</summary>
    private bool IsManaged(EvioAddress address) => address.Managed || !_group.HasPollers;

    private Task<IServerListener> ListenAsync(EvioAddress address, int index)
    {
        return (IsManaged(address), address.IsDatagram) switch
        {
            (false, false) => ListenStreamAsync(address, index),
            (true, false) => ManagedListener.BindAsync(this, address, index),
            (false, true) => DatagramServer.BindAsync(this, address, index),
            (true, true) => ManagedDatagramServer.BindAsync(this, address, index),
        };
    }

    private async Task<IServerListener> ListenStreamAsync(EvioAddress address, int index) =>
        await _group.ListenAsync(
            address.EndPoint,
            socket => Open(socket, index),
            new StreamListenerOptions { SharePort = address.ReusePort, DualMode = address.DualMode, StartPaused = true }).ConfigureAwait(false);

    private void Open(StreamSocket socket, int index)
    {
        if (!_serving)
        {
            // The connection is from the backlog, which a listener accepts when it closes: Serving has refused to serve.
            socket.Close();
            return;
        }

        _ = LoopOf(socket.Loop).Open(socket, index);
    }

    private async Task BeginAsync()
    {
        if (Events.Serving is { } serving)
        {
            var served = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _group.Loops[0].TryPost(
                _ =>
                {
                    try
                    {
                        Handle(serving(this));
                        served.SetResult();
                    }
                    catch (Exception exception)
                    {
                        served.SetException(exception);
                    }
                },
                null);
            await served.Task.ConfigureAwait(false);
        }

        if (Volatile.Read(ref _stopping) != 0)
        {
            return;
        }

        _serving = true;
        foreach (var listener in _listeners)
        {
            listener.Resume();
        }

        if (Events.Tick is not null)
        {
            _group.Loops[0].TryPost(static loop => ((ServerLoop)loop!).StartTicking(), _loops[0]);
        }
    }
}
