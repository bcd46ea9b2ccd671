using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;

namespace Evio.Transport;

/// <summary>
/// Makes listeners and outbound connections on evio's event loops, for Kestrel or for any other code that works with
/// <see cref="ConnectionContext"/>s.
/// </summary>
/// <remarks>
/// All listeners and connections of one factory share one group of loops, which starts with the first of them and ends with the factory.
/// All members may be used from any thread.
/// </remarks>
public sealed class EvioTransportFactory :
    IConnectionListenerFactory, IConnectionListenerFactorySelector, IConnectionFactory, IAsyncDisposable, IDisposable
{
    private readonly EvioTransportOptions _options;
    private readonly IMemoryPoolFactory<byte>? _memoryPoolFactory;
    private readonly IMeterFactory? _meterFactory;
    private readonly IHostApplicationLifetime? _lifetime;
    private readonly ILogger _logger;
    private readonly Lock _lock = new();
    private TransportLoops? _loops;
    private OutboundConnections? _outbound;
    private bool _unsupportedLogged;
    private bool _disposed;

    /// <summary>Creates a factory; nothing is started yet.</summary>
    /// <param name="options">The options.</param>
    /// <param name="loggerFactory">Where to log, in the category "Evio.Transport"; without it nothing is logged.</param>
    /// <param name="memoryPoolFactory">
    /// Makes the pools of the connections' buffers, one per loop and listener; without it <see cref="MemoryPool{T}.Shared"/> is used.
    /// Kestrel registers one. Buffers that are larger than its blocks come from the shared arrays. They have up to 256 KiB, unless the
    /// caller asks for a larger size.
    /// </param>
    /// <param name="meterFactory">
    /// Makes the meter <see cref="EventLoopGroup.MeterName"/> of the loops; without it they have one of their own. Hosts register one.
    /// </param>
    /// <param name="lifetime">
    /// The host, which is stopped when the last of the loops has failed, because nothing could connect any more. Hosts register one.
    /// </param>
    /// <exception cref="OptionsValidationException">An option has a value out of its range.</exception>
    public EvioTransportFactory(
        IOptions<EvioTransportOptions> options,
        ILoggerFactory? loggerFactory = null,
        IMemoryPoolFactory<byte>? memoryPoolFactory = null,
        IMeterFactory? meterFactory = null,
        IHostApplicationLifetime? lifetime = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        _options = options.Value;
        var validation = new EvioTransportOptionsValidator().Validate(Options.DefaultName, _options);
        if (validation.Failed)
        {
            throw new OptionsValidationException(Options.DefaultName, typeof(EvioTransportOptions), validation.Failures);
        }

        _logger = new GuardedLogger((loggerFactory ?? NullLoggerFactory.Instance).CreateLogger(Log.Category));
        _memoryPoolFactory = memoryPoolFactory;
        _meterFactory = meterFactory;
        _lifetime = lifetime;
    }

    /// <summary>The event loops, with their numbers of connections; empty until the first end point is bound.</summary>
    public IReadOnlyList<EventLoop> Loops => _loops?.Group.Loops ?? [];

    /// <summary>
    /// Whether this factory serves an end point: IP, Unix-domain and file-handle end points, but no types derived from these, on systems
    /// that have a poller (<see cref="EventLoopGroup.IsSupported"/>). Elsewhere the log says so once, and other registered factories get
    /// their turn.
    /// </summary>
    public bool CanBind(EndPoint endpoint)
    {
        if (!IsOwn(endpoint))
        {
            return false;
        }

        if (EventLoopGroup.IsSupported)
        {
            return true;
        }

        lock (_lock)
        {
            if (!_unsupportedLogged)
            {
                _unsupportedLogged = true;
                Log.NotSupported(_logger);
            }
        }

        return false;
    }

    /// <summary>Binds an end point and begins to accept.</summary>
    /// <param name="endpoint">One that <see cref="CanBind"/> accepts.</param>
    /// <param name="cancellationToken">Checked before the start; binding does not wait for anything.</param>
    /// <returns>The listener, whose <see cref="IConnectionListener.EndPoint"/> is the bound one.</returns>
    /// <exception cref="AddressInUseException">The address is in use.</exception>
    /// <exception cref="SocketException">
    /// The address cannot be bound for another reason; it is not of this machine, for example.
    /// </exception>
    /// <exception cref="NotSupportedException">The end point is of another kind.</exception>
    /// <exception cref="ObjectDisposedException">The factory is disposed.</exception>
    public async ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(endpoint);
        cancellationToken.ThrowIfCancellationRequested();
        if (!CanBind(endpoint))
        {
            throw new NotSupportedException($"The evio transport cannot bind {endpoint} ({endpoint.GetType().Name}) on this system.");
        }

        try
        {
            return await EvioConnectionListener.BindAsync(Started(), endpoint).ConfigureAwait(false);
        }
        catch (SocketException exception) when (exception.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            throw new AddressInUseException(exception.Message, exception);
        }
    }

    /// <summary>Connects to a server.</summary>
    /// <param name="endpoint">
    /// An <see cref="IPEndPoint"/>, a <see cref="UnixDomainSocketEndPoint"/>, or a <see cref="DnsEndPoint"/>, whose addresses are tried in
    /// turn.
    /// </param>
    /// <param name="cancellationToken">Ends the attempt. Each address has <see cref="EvioTransportOptions.ConnectTimeout"/>.</param>
    /// <returns>The connection, on the loop that <see cref="EvioTransportOptions.LoadBalance"/> chose. The caller disposes of it.</returns>
    /// <exception cref="SocketException">
    /// No server listens there, it cannot be reached, there is no such host, or it did not answer in time
    /// (<see cref="SocketError.TimedOut"/>).
    /// </exception>
    /// <exception cref="ArgumentException">The end point is of another kind.</exception>
    /// <exception cref="OperationCanceledException"><paramref name="cancellationToken"/> was cancelled.</exception>
    /// <exception cref="PlatformNotSupportedException">There is no poller (<see cref="EventLoopGroup.IsSupported"/>).</exception>
    /// <exception cref="ObjectDisposedException">The factory is disposed.</exception>
    public async ValueTask<ConnectionContext> ConnectAsync(EndPoint endpoint, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(endpoint);
        cancellationToken.ThrowIfCancellationRequested();
        return await Outbound().ConnectAsync(endpoint, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Ends the loops. Connections that are still open are aborted.</summary>
    public async ValueTask DisposeAsync()
    {
        TransportLoops? loops;
        OutboundConnections? outbound;
        lock (_lock)
        {
            _disposed = true;
            loops = _loops;
            outbound = _outbound;
        }

        if (loops is not null)
        {
            await loops.DisposeAsync().ConfigureAwait(false);
        }

        if (outbound is not null)
        {
            await loops!.WaitUnlessHeldAsync(outbound.EndAsync()).ConfigureAwait(false);
        }
    }

    /// <inheritdoc cref="DisposeAsync"/>
    [SuppressMessage("Usage", "VSTHRD002", Justification = "The loops' threads end by themselves; nothing that they wait for runs on this one.")]
    public void Dispose() => DisposeAsync().AsTask().GetAwaiter().GetResult();

    /// <summary>
    /// Whether this factory serves end points of this type. A derived type means more than an address, TLS for example, and belongs to the
    /// factory that knows it.
    /// </summary>
    private static bool IsOwn(EndPoint endPoint) =>
        endPoint?.GetType() is var type
        && (type == typeof(IPEndPoint)
            || type == typeof(UnixDomainSocketEndPoint)
            || (type == typeof(FileHandleEndPoint) && endPoint is FileHandleEndPoint { FileHandleType: FileHandleType.Auto or FileHandleType.Tcp }));

    private TransportLoops Started()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (_loops is null)
            {
                _loops = new TransportLoops(_options, _logger, _memoryPoolFactory, _meterFactory);
                _ = _loops.Failed.UnsafeRegister(static factory => ((EvioTransportFactory)factory!).OnLoopsFailed(), this);
            }

            return _loops;
        }
    }

    private void OnLoopsFailed()
    {
        _lifetime?.StopApplication();
        Log.AllLoopsFailed(_logger, _loops!.Failure!);
    }

    private OutboundConnections Outbound()
    {
        var loops = Started();
        lock (_lock)
        {
            return _outbound ??= new OutboundConnections(loops);
        }
    }
}
