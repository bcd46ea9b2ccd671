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
/// <see cref="Start"/> is to be called once, on the loop. Everything else may be called from any thread, also after the socket was closed: a
/// receive or send is then refused, and never reaches a descriptor that the kernel has given out again.
/// </para>
/// <para>
/// That is ensured by leases: each call holds one while it is in the kernel, the open socket itself is one, and close(2) waits for the last of them.
/// Closing is a bit in the same word, after which no lease is granted. The loop forgets the socket later: what it is told of a descriptor, it is told
/// under the socket's token, which no other socket gets.
/// </para>
/// </remarks>
public sealed unsafe partial class StreamSocket : IPollTarget, IStreamChannel, IDisposable
{
    /// <summary>The most buffers that one call hands to the kernel; further ones are left for the next call.</summary>
    public const int MaxBuffers = 64;

    // Bits beside the number of leases. Either makes it negative, for good; only under Closing alone the last lease closes the descriptor.
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

    // The error that a call has taken, if it ended the connection; whether this side's output was ended by this object.
    private int _lostTo;
    private bool _outputShut;

    // What GetSocket has made, if anybody asked.
    private Socket? _view;

    /// <param name="loop">The owner, which has counted the connection.</param>
    /// <param name="descriptor">The connection; this object closes it.</param>
    /// <param name="listenerEndPoint">What the listener is bound to.</param>
    /// <param name="remoteAddress">The peer's address as accept4 gave it.</param>
    internal StreamSocket(EventLoop loop, int descriptor, EndPoint? listenerEndPoint, in SocketAddressBytes remoteAddress)
    {
        Loop = loop;
        _descriptor = descriptor;
        _remoteAddress = remoteAddress;

        // Bound to one address, every connection has that one. Bound to all, each has to be asked, and now, while it surely can be.
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

    /// <summary>The peer's address. The client's end of a Unix-domain connection usually has none; this is then the unnamed address.</summary>
    public EndPoint? RemoteEndPoint => _remoteEndPoint ??= _remoteAddress.ToIPEndPoint() ?? (EndPoint?)SocketAddresses.ToEndPoint(UnnamedUnixAddress);

    private static ReadOnlySpan<byte> UnnamedUnixAddress => Platform.HasAddressLength ? [2, Platform.AF_UNIX] : [Platform.AF_UNIX, 0];

    /// <summary>
    /// The connection as a <see cref="Socket"/>, for what this class does not have: the same object each time. It has a descriptor of its own, is not
    /// <see cref="Socket.Blocking"/>, and is disposed of with this socket's close, or when this socket is detached; who disposes of it earlier does no harm to this socket.
    /// </summary>
    /// <exception cref="ObjectDisposedException">The socket is closed, and nobody asked before.</exception>
    /// <exception cref="SocketException">There is no descriptor left.</exception>
    public Socket GetSocket()
    {
        if (Volatile.Read(ref _view) is { } view)
        {
            return view;
        }

        ObjectDisposedException.ThrowIf(!TryLease(), this);
        try
        {
            return MakeView();
        }
        finally
        {
            // If the socket was closed meanwhile this is the last lease, and disposes of it.
            EndLease();
        }
    }

    private Socket MakeView()
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

        if (Interlocked.CompareExchange(ref _view, made, null) is { } view)
        {
            made.Dispose();
            return view;
        }

        if (Volatile.Read(ref _leases) < 0)
        {
            // Detached meanwhile, perhaps, by one who has not seen it. Twice is harmless.
            DisposeView();
        }

        return made;
    }

    /// <summary>Disposes of what <see cref="GetSocket"/> has made. The descriptor is still open.</summary>
    private void DisposeView()
    {
        if (Volatile.Read(ref _view) is not { } view)
        {
            return;
        }

        // When an operation is pending the BCL sets the linger time to zero, for all who have the connection, and so has its close reset it.
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
    /// <param name="handler">Gets the events. Closing the socket from within it is permitted.</param>
    /// <exception cref="InvalidOperationException">The caller is not on the loop, or the socket is started or closed.</exception>
    /// <exception cref="SocketException">The kernel refused to watch the socket, for want of memory for example.</exception>
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
    /// <param name="buffer">Room for it; not empty.</param>
    /// <returns>How much arrived, 0 at the end of the peer's output, or why nothing was received.</returns>
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
    /// <returns>How much the kernel took, which may be less than given, or why it took nothing.</returns>
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

    /// <summary>Sends as much of several buffers, one after the other, as the kernel takes, without waiting.</summary>
    /// <param name="buffers">At least one; those beyond <see cref="MaxBuffers"/> are not used.</param>
    /// <returns>How much the kernel took in all, which may be less than given, or why it took nothing.</returns>
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
            // SAFETY: the vectors are on this stack frame's caller, and point to memory that is pinned until Release.
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

    /// <summary>
    /// Remembers an error that ended the connection. The kernel reports it once, to the call that comes first, and answers every later receive like an end
    /// of the input.
    /// </summary>
    private void NoteError(int errno)
    {
        // EPIPE is not among them: a send gets it after this side's own end of output, and when a reset follows the peer's FIN.
        if (errno is Errno.ECONNRESET or Errno.ETIMEDOUT or Errno.EHOSTUNREACH or Errno.ENETUNREACH)
        {
            Volatile.Write(ref _lostTo, errno);
        }
    }

    /// <summary>A receive came to nothing: the peer's FIN, or an error that ended the connection and that another call has taken.</summary>
    private IoResult EndOfInput()
    {
        // The leases before the error: a call that has ended has noted what it took. One that is still in the kernel, or just back, may not have. Only then
        // the connection's state is asked, which is "closed" after a reset, but also after a graceful end of both sides.
        var isAlone = (Volatile.Read(ref _leases) & ~Detached) <= 2;
        var errno = Volatile.Read(ref _lostTo);
        if (errno != 0)
        {
            return IoResult.FromError(errno);
        }

        // The state before the own end of output, which is noted before it can make the state what it is.
        return isAlone || !SocketCalls.IsClosed(_descriptor) || Volatile.Read(ref _outputShut)
            ? IoResult.FromCount(0)
            : IoResult.FromError(Errno.ECONNRESET);
    }

    /// <summary>
    /// Takes the error that <see cref="ReadyEvents.Error"/> announced: a reset, for example. Otherwise the next receive or send would come to it, a receive
    /// not before all input that arrived before it is read (<c>SO_ERROR</c>, socket(7)).
    /// </summary>
    /// <returns>The error, or <see cref="SocketError.Success"/> when a receive or send has taken it.</returns>
    public SocketError TakeError()
    {
        if (!TryLease())
        {
            return SocketError.OperationAborted;
        }

        var errno = SocketDescriptors.TakeError(_descriptor);
        NoteError(errno);
        EndLease();
        return Errno.ToSocketError(errno);
    }
}
