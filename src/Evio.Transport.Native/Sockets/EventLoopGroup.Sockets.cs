using System.Net;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native;

/// <content>Listens and connects. The code of the loops themselves, in <c>Loops</c>, does not depend on sockets.</content>
public sealed partial class EventLoopGroup
{
    /// <summary>The function that looks up host names.</summary>
    internal Resolver Resolve { get; set; } = Dns.GetHostAddressesAsync;

    /// <summary>Listens for stream connections on all loops.</summary>
    /// <param name="endPoint">
    /// An <see cref="IPEndPoint"/> (port 0 for any free port; <see cref="IPAddress.IPv6Any"/> takes IPv4 as well) or a
    /// <see cref="System.Net.Sockets.UnixDomainSocketEndPoint"/> (a stale socket file is replaced, any other file is not).
    /// </param>
    /// <param name="onAccepted">
    /// Receives each connection on the loop that owns it, and must start or close it. If it throws, the connection is closed, and the
    /// exception goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
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
    /// <param name="descriptor">
    /// A bound stream socket, TCP or Unix. It is made non-blocking and close-on-exec, and made to listen unless it listens already.
    /// </param>
    /// <param name="ownsDescriptor">Whether the listener closes the descriptor in the end.</param>
    /// <param name="onAccepted">As for <see cref="ListenAsync"/>.</param>
    /// <param name="options">How to listen; <see langword="null"/> for the defaults.</param>
    /// <returns>The listener, accepting.</returns>
    /// <exception cref="System.Net.Sockets.SocketException">The descriptor is not a bound stream socket, or it is connected.</exception>
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

    /// <summary>Connects to a server, without blocking any thread.</summary>
    /// <param name="endPoint">
    /// An <see cref="IPEndPoint"/>, a <see cref="System.Net.Sockets.UnixDomainSocketEndPoint"/>, or a <see cref="DnsEndPoint"/>. The
    /// addresses of the latter are tried in the order of the resolver's answer until one connects.
    /// </param>
    /// <param name="onConnected">
    /// Receives the connection on the loop that owns it, and must start or close it. If it throws, the connection is closed, and the task
    /// fails.
    /// </param>
    /// <param name="options">How to connect; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">
    /// Ends the attempt. <see cref="StreamConnectOptions.ConnectTimeout"/> limits it as well, for each address, and so does the kernel
    /// (about two minutes for TCP; tcp(7), <c>tcp_syn_retries</c>).
    /// </param>
    /// <returns>A task that completes when <paramref name="onConnected"/> has returned.</returns>
    /// <exception cref="System.Net.Sockets.SocketException">
    /// There is no such host, no server listens there, or the host cannot be reached.
    /// </exception>
    /// <exception cref="ArgumentException">
    /// The end point is of another kind, the loop is another group's, or an option has a value out of its range.
    /// </exception>
    /// <exception cref="OperationCanceledException"><paramref name="cancellationToken"/> was cancelled.</exception>
    /// <exception cref="ObjectDisposedException">The group is disposed.</exception>
    public Task ConnectAsync(
        EndPoint endPoint, Action<StreamSocket> onConnected, StreamConnectOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(endPoint);
        ArgumentNullException.ThrowIfNull(onConnected);
        options ??= new StreamConnectOptions();
        if (options.Loop is { } loop && !_loops.Contains(loop))
        {
            throw new ArgumentException($"{nameof(options.Loop)} is not one of this group.", nameof(options));
        }

        if (options.ConnectTimeout <= TimeSpan.Zero && options.ConnectTimeout != Timeout.InfiniteTimeSpan)
        {
            throw new ArgumentException(
                $"{nameof(options.ConnectTimeout)} is {options.ConnectTimeout}; it must be positive, or {nameof(Timeout.InfiniteTimeSpan)}.", nameof(options));
        }

        ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);
        if (cancellationToken.IsCancellationRequested)
        {
            return Task.FromCanceled(cancellationToken);
        }

        return endPoint switch
        {
            DnsEndPoint name =>
                NameResolution.ConnectAsync(name, Resolve, address => ConnectAsync(address, onConnected, options, cancellationToken), cancellationToken),
            IPEndPoint or System.Net.Sockets.UnixDomainSocketEndPoint =>
                StreamConnector.ConnectAsync(AssignOutbound(options.Loop), endPoint, options, onConnected, cancellationToken),
            _ => throw new ArgumentException($"{endPoint} is a {endPoint.GetType().Name}, which cannot be connected to.", nameof(endPoint)),
        };
    }

    /// <summary>Chooses the loop that will own an outbound connection, and counts the connection there.</summary>
    internal EventLoop AssignOutbound(EventLoop? wanted)
    {
        wanted?.ConnectionAdded();
        return wanted ?? _balancer.Assign();
    }
}
