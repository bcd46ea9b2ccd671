using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native;

/// <summary>A connected, non-blocking stream socket (TCP or Unix) that belongs to one loop.</summary>
/// <remarks>
/// <para>
/// <see cref="Start"/> is called once, on the loop. <see cref="Detach"/> is called on the loop as well. The other members may be called
/// from any thread, also after the socket was closed. A closed socket refuses a receive or a send, so neither reaches a descriptor number
/// that the kernel has given out again.
/// </para>
/// <para>
/// Leases ensure this. Each call holds a lease while it is in the kernel, the open socket holds one itself, and close(2) waits for the last
/// of them. Closing is a bit in the same word, after which no lease is granted. The loop removes the socket later. Events carry the
/// socket's token, which no other socket gets.
/// </para>
/// </remarks>
public sealed unsafe partial class StreamSocket : IPollTarget, IStreamChannel, IDisposable
{
    /// <summary>The largest number of buffers that one call hands to the kernel. The caller passes the others to the next call.</summary>
    public const int MaxBuffers = 64;

    // Bits beside the number of leases. Either of them makes the word negative for good. The last lease closes the descriptor only if
    // Closing alone is set.
    private const int Closing = int.MinValue;
    private const int Detached = Closing | (1 << 30);

    private readonly int _descriptor;
    private readonly SocketAddressBytes _localAddress;
    private readonly SocketAddressBytes _remoteAddress;
    private IStreamHandler? _handler;
    private EndPoint? _localEndPoint;
    private EndPoint? _remoteEndPoint;
    private ulong _token;
    private int _leases = 1;
    private int _removed;

    // The error that ended the connection, once a call has taken it; and whether this object has shut down its output.
    private int _terminalError;
    private bool _sendShutdown;

    // The Socket that GetSocket has created, or null.
    private Socket? _socketView;

    /// <param name="loop">The owner, which has counted the connection.</param>
    /// <param name="descriptor">The connection; this object closes it.</param>
    /// <param name="listenerEndPoint">What the listener is bound to.</param>
    /// <param name="remoteAddress">The peer's address as accept4 gave it.</param>
    internal StreamSocket(EventLoop loop, int descriptor, EndPoint? listenerEndPoint, in SocketAddressBytes remoteAddress)
    {
        Loop = loop;
        _descriptor = descriptor;
        _remoteAddress = remoteAddress;

        // If the listener is bound to one address, every connection has that local address. If it is bound to all addresses, the descriptor
        // is asked now, while the call is certain to succeed.
        if (listenerEndPoint is IPEndPoint { Address: var address } && (address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any)))
        {
            _localAddress = SocketAddresses.GetLocalBytes(descriptor);
        }
        else
        {
            _localEndPoint = listenerEndPoint;
        }
    }

    /// <param name="loop">The owner, which has counted the connection.</param>
    /// <param name="descriptor">The connection; this object closes it.</param>
    /// <param name="localEndPoint">This side's address.</param>
    /// <param name="remoteEndPoint">The address that was connected to.</param>
    internal StreamSocket(EventLoop loop, int descriptor, EndPoint? localEndPoint, EndPoint remoteEndPoint)
    {
        Loop = loop;
        _descriptor = descriptor;
        _localEndPoint = localEndPoint;
        _remoteEndPoint = remoteEndPoint;
    }

    /// <summary>The loop that the socket belongs to.</summary>
    public EventLoop Loop { get; }

    /// <summary>This side's address.</summary>
    public EndPoint? LocalEndPoint => _localEndPoint ??= _localAddress.ToIPEndPoint();

    /// <summary>
    /// The peer's address. The client's end of a Unix-domain connection usually has none; this is then the unnamed address.
    /// </summary>
    public EndPoint? RemoteEndPoint => _remoteEndPoint ??= _remoteAddress.ToIPEndPoint() ?? (EndPoint?)SocketAddresses.ToEndPoint(UnnamedUnixAddress);

    private static ReadOnlySpan<byte> UnnamedUnixAddress => Platform.HasAddressLength ? [2, Platform.AF_UNIX] : [Platform.AF_UNIX, 0];

    /// <summary>
    /// Returns the connection as a <see cref="Socket"/>, for operations that this class does not have. Every call returns the same object.
    /// It has a descriptor of its own, is not <see cref="Socket.Blocking"/>, and is disposed of when this socket is closed or detached.
    /// Disposing of it earlier does no harm to this socket.
    /// </summary>
    /// <exception cref="ObjectDisposedException">The socket is closed, and no earlier call has created the object.</exception>
    /// <exception cref="SocketException">No descriptor is left.</exception>
    public Socket GetSocket()
    {
        if (Volatile.Read(ref _socketView) is { } view)
        {
            return view;
        }

        ObjectDisposedException.ThrowIf(!TryLease(), this);
        try
        {
            return CreateSocketView();
        }
        finally
        {
            // If the socket was closed meanwhile, the last lease to end disposes of the view.
            EndLease();
        }
    }

    private Socket CreateSocketView()
    {
        var handle = new SafeSocketHandle(SocketDescriptors.Duplicate(_descriptor), ownsHandle: true);
        Socket made;
        try
        {
            made = new Socket(handle);
        }
        catch
        {
            handle.Dispose();
            throw;
        }

        if (Interlocked.CompareExchange(ref _socketView, made, null) is { } view)
        {
            made.Dispose();
            return view;
        }

        if (Volatile.Read(ref _leases) < 0)
        {
            // Another thread may have detached the socket meanwhile, without seeing the view. Disposing of it twice does no harm.
            DisposeView();
        }

        return made;
    }

    /// <summary>Disposes of the view that <see cref="GetSocket"/> has created, while the descriptor is still open.</summary>
    private void DisposeView()
    {
        if (Volatile.Read(ref _socketView) is not { } view)
        {
            return;
        }

        // If an operation is pending, the BCL sets the linger time to zero, for all descriptors of the connection. Then the close of this
        // socket would reset it.
        var linger = stackalloc int[2];
        uint length = 2 * sizeof(int);
        var isKnown = Libc.getsockopt(_descriptor, Platform.SOL_SOCKET, Platform.SO_LINGER, linger, &length) == 0;
        view.Dispose();
        if (isKnown)
        {
            _ = Libc.setsockopt(_descriptor, Platform.SOL_SOCKET, Platform.SO_LINGER, linger, length);
        }
    }

    /// <summary>Begins to report events to a handler. To be called once, on the loop.</summary>
    /// <param name="handler">Receives the events. It may close the socket from within them.</param>
    /// <exception cref="InvalidOperationException">The caller is not on the loop, or the socket is started or closed.</exception>
    /// <exception cref="SocketException">The kernel refused to watch the socket, for lack of memory for example.</exception>
    public void Start(IStreamHandler handler)
    {
        ArgumentNullException.ThrowIfNull(handler);
        using var owner = Loop.Ownership.Enter();
        if (!owner.IsOwner || _handler is not null || !TryLease())
        {
            throw new InvalidOperationException("A socket is started once, on its loop, while it is open.");
        }

        _handler = handler;
        _token = Loop.Add(owner, this);
        var errno = Loop.RegisterStream(owner, _token, _descriptor);
        EndLease();
        if (errno != 0)
        {
            Loop.Remove(owner, _token);
            _token = Polling.Poller.WakeToken;
            _handler = null;
            throw Errno.ToException(errno, $"The connection could not be registered with its loop (errno {errno}).");
        }
    }

    /// <summary>Receives what has arrived, without waiting.</summary>
    /// <param name="buffer">The buffer to fill. It must not be empty.</param>
    /// <returns>The number of bytes received, 0 at the end of the peer's output, or the reason why nothing was received.</returns>
    public IoResult Receive(Span<byte> buffer)
    {
        Debug.Assert(!buffer.IsEmpty, "A receive without room looks like the end of the input.");
        if (!TryLease())
        {
            return IoResult.Closed;
        }

        try
        {
            // SAFETY: the memory is fixed for the duration of the call, and the call does not block.
            fixed (byte* start = buffer)
            {
                while (true)
                {
                    var count = Libc.recv(_descriptor, start, (nuint)buffer.Length, 0);
                    if (count >= 0)
                    {
                        return Received(count);
                    }

                    var errno = Errno.Last;
                    if (errno != Errno.EINTR)
                    {
                        return Failed(errno);
                    }
                }
            }
        }
        finally
        {
            EndLease();
        }
    }

    /// <summary>Sends as much as the kernel takes, without waiting.</summary>
    /// <returns>The number of bytes that the kernel took, which may be less than given, or the reason why it took none.</returns>
    public IoResult Send(ReadOnlySpan<byte> buffer)
    {
        if (!TryLease())
        {
            return IoResult.Closed;
        }

        try
        {
            // SAFETY: the memory is fixed for the duration of the call, and the call does not block.
            fixed (byte* start = buffer)
            {
                while (true)
                {
                    var count = Libc.send(_descriptor, start, (nuint)buffer.Length, Platform.MSG_NOSIGNAL);
                    if (count >= 0)
                    {
                        return Sent(count);
                    }

                    var errno = Errno.Last;
                    if (errno != Errno.EINTR)
                    {
                        return Failed(errno);
                    }
                }
            }
        }
        finally
        {
            EndLease();
        }
    }

    /// <summary>Sends several buffers in their order, as far as the kernel takes them, without waiting.</summary>
    /// <param name="buffers">At least one. Buffers beyond <see cref="MaxBuffers"/> are not used.</param>
    /// <returns>The number of bytes that the kernel took in all, which may be less than given, or the reason why it took none.</returns>
    public IoResult Send(ReadOnlySpan<ReadOnlyMemory<byte>> buffers)
    {
        if (buffers.Length == 1)
        {
            return Send(buffers[0].Span);
        }

        var pins = new PinnedBuffers();
        try
        {
            foreach (var buffer in buffers[..Math.Min(buffers.Length, MaxBuffers)])
            {
                pins.Add(buffer);
            }

            return Send(ref pins);
        }
        finally
        {
            pins.Release();
        }
    }

    private IoResult Send(ref PinnedBuffers pins)
    {
        if (!TryLease())
        {
            return IoResult.Closed;
        }

        try
        {
            // SAFETY: the vectors are in the caller's stack frame, and point to memory that is pinned until Release.
            fixed (IoVector* vectors = pins.Vectors)
            {
                var message = new MessageHeader { Vectors = vectors, VectorCount = (nuint)pins.Count };
                while (true)
                {
                    var count = Libc.sendmsg(_descriptor, &message, Platform.MSG_NOSIGNAL);
                    if (count >= 0)
                    {
                        return Sent(count);
                    }

                    var errno = Errno.Last;
                    if (errno != Errno.EINTR)
                    {
                        return Failed(errno);
                    }
                }
            }
        }
        finally
        {
            EndLease();
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private IoResult Sent(nint count)
    {
        Loop.Meter.Sent(count);
        return IoResult.FromCount(count);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private IoResult Received(nint count)
    {
        Loop.Meter.Received(count);
        return count > 0 ? IoResult.FromCount(count) : EndOfInput();
    }

    private IoResult Failed(int errno)
    {
        NoteError(errno);
        return IoResult.FromError(errno);
    }
}
