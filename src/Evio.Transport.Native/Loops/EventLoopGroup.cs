using System.Net;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Polling;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native;

/// <summary>The event loops of a server, and the choice among them for every connection.</summary>
/// <remarks>All members may be used from any thread.</remarks>
public sealed class EventLoopGroup : IAsyncDisposable, IDisposable
{
    private readonly EventLoop[] _loops;
    private readonly LoopBalancer _balancer;
    private readonly Action<EventLoop, Exception>? _onUnhandledException;
    private readonly Lazy<Task> _stopped;

    /// <summary>Makes the loops and starts their threads.</summary>
    /// <param name="options">How many, and how they share the connections.</param>
    /// <exception cref="ArgumentException">An option has a value out of its range, or there is no such processor to bind to.</exception>
    /// <exception cref="PlatformNotSupportedException">See <see cref="IsSupported"/>.</exception>
    /// <exception cref="System.Net.Sockets.SocketException">The kernel gave no poller, for want of descriptors for example.</exception>
    public EventLoopGroup(EventLoopGroupOptions options)
        : this(options, managed: false)
    {
    }

    /// <param name="options">How many loops, and how they share the connections.</param>
    /// <param name="managed">Whether the loops have no poller, but only posted calls and timers: for sockets of the BCL, on any system.</param>
    internal EventLoopGroup(EventLoopGroupOptions options, bool managed)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.LoopCount is < -1 or > EventLoopGroupOptions.MaxLoopCount)
        {
            throw new ArgumentException(
                $"{nameof(options.LoopCount)} is {options.LoopCount}; it must be from 1 to {EventLoopGroupOptions.MaxLoopCount}, " +
                "0 (one loop) or -1 (one per processor).",
                nameof(options));
        }

        if (!Enum.IsDefined(options.LoadBalance))
        {
            throw new ArgumentException($"{nameof(options.LoadBalance)} is {options.LoadBalance}, which is not defined.", nameof(options));
        }

        if (!managed && !IsSupported)
        {
            throw new PlatformNotSupportedException("Event loops need epoll: a 64-bit process on Linux.");
        }

        _onUnhandledException = options.OnUnhandledException;
        var count = options.LoopCount switch
        {
            -1 => Math.Min(Environment.ProcessorCount, EventLoopGroupOptions.MaxLoopCount),
            0 => 1,
            var given => given,
        };

        _loops = new EventLoop[count];
        _stopped = new Lazy<Task>(() => Task.WhenAll(_loops.Where(static loop => loop is not null).Select(static loop => loop.StopAsync())));
        try
        {
            for (var i = 0; i < count; i++)
            {
                _loops[i] = new EventLoop(this, i, options, managed ? new SignalPoller() : Poller.Create());
            }

            foreach (var loop in _loops)
            {
                loop.Start();
            }
        }
        catch
        {
            Dispose();
            throw;
        }

        _balancer = new LoopBalancer(_loops, options.LoadBalance);
    }

    /// <summary>Whether this system has a poller that the loops can run on: epoll, in a 64-bit process on Linux.</summary>
    public static bool IsSupported => Poller.IsSupported;

    /// <summary>The loops, by <see cref="EventLoop.Index"/>.</summary>
    public IReadOnlyList<EventLoop> Loops => _loops;

    internal LoopBalancer Balancer => _balancer;

    /// <summary>Listens for stream connections on all loops.</summary>
    /// <param name="endPoint">
    /// An <see cref="IPEndPoint"/> (port 0 for any free port; <see cref="IPAddress.IPv6Any"/> takes IPv4 as well) or a
    /// <see cref="System.Net.Sockets.UnixDomainSocketEndPoint"/> (a stale socket file is replaced, any other file is not).
    /// </param>
    /// <param name="onAccepted">
    /// Gets each connection, on the loop that owns it, and has to start or to close it. What it throws goes to
    /// <see cref="EventLoopGroupOptions.OnUnhandledException"/>, and the connection is closed.
    /// </param>
    /// <param name="options">How to listen; <see langword="null"/> for the defaults.</param>
    /// <returns>The listener, bound and accepting.</returns>
    /// <exception cref="System.Net.Sockets.SocketException">
    /// The address is in use (<see cref="System.Net.Sockets.SocketError.AddressAlreadyInUse"/>), not of this machine
    /// (<see cref="System.Net.Sockets.SocketError.AddressNotAvailable"/>), not permitted
    /// (<see cref="System.Net.Sockets.SocketError.AccessDenied"/>)...
    /// </exception>
    /// <exception cref="ArgumentException">The end point is of another kind, or an option has a value out of its range.</exception>
    /// <exception cref="ObjectDisposedException">The group is disposed.</exception>
    public Task<StreamListener> ListenAsync(EndPoint endPoint, Action<StreamSocket> onAccepted, StreamListenerOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(endPoint);
        ArgumentNullException.ThrowIfNull(onAccepted);
        options ??= new StreamListenerOptions();
        options.Validate();
        ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);
        return StreamListener.StartAsync(this, ListenSockets.Bind(endPoint, options, _loops.Length), onAccepted, options);
    }

    /// <summary>Listens on a descriptor that is bound already, inherited from a parent process for example.</summary>
    /// <param name="descriptor">A stream socket, TCP or Unix, bound and listening. It is made non-blocking and close-on-exec.</param>
    /// <param name="ownsDescriptor">Whether the listener closes it in the end.</param>
    /// <param name="onAccepted">As for <see cref="ListenAsync"/>.</param>
    /// <param name="options">How to listen; <see langword="null"/> for the defaults.</param>
    /// <returns>The listener, accepting.</returns>
    /// <exception cref="System.Net.Sockets.SocketException">The descriptor is no listening stream socket.</exception>
    /// <exception cref="ArgumentException">An option has a value out of its range.</exception>
    /// <exception cref="ObjectDisposedException">The group is disposed.</exception>
    public Task<StreamListener> ListenOnDescriptorAsync(
        int descriptor, bool ownsDescriptor, Action<StreamSocket> onAccepted, StreamListenerOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(onAccepted);
        options ??= new StreamListenerOptions();
        options.Validate();
        ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);
        return StreamListener.StartAsync(this, ListenSockets.Inherit(descriptor, ownsDescriptor, options), onAccepted, options);
    }

    /// <summary>
    /// Ends all loops: listeners and connections are closed, their handlers told, the calls posted before are made, the threads joined.
    /// </summary>
    /// <returns>A task that completes when the last thread has ended.</returns>
    public ValueTask DisposeAsync() => new(_stopped.Value);

    /// <inheritdoc cref="DisposeAsync"/>
    /// <exception cref="InvalidOperationException">The caller is on one of the loops, which would wait for itself.</exception>
    public void Dispose()
    {
        if (_loops.Any(static loop => loop is { IsCurrent: true }))
        {
            throw new InvalidOperationException($"A loop cannot wait for its own end; use {nameof(DisposeAsync)}.");
        }

        _stopped.Value.GetAwaiter().GetResult();
    }

    internal void OnUnhandledException(EventLoop loop, Exception exception)
    {
        if (_onUnhandledException is { } receiver)
        {
            receiver(loop, exception);
            return;
        }

        ThreadPool.UnsafeQueueUserWorkItem(
            static exception => System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw((Exception)exception!), exception);
    }
}
