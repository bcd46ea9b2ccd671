using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Managed;

/// <summary>
/// A UDP address of a server on <see cref="System.Net.Sockets"/>: one socket, whose datagrams all go to one loop. The n-th address goes to
/// the n-th loop, in turn.
/// </summary>
/// <remarks>
/// The BCL completes a receive on a thread of the pool, and the datagram goes to the loop from there. The BCL reuses its objects for a
/// receive, so that datagrams cost no memory here either. On a socket that is bound to all addresses, each receive makes some objects,
/// because only they have the address to which the datagram came. The BCL cannot set the source of a reply. So the reply is sent with
/// sendmsg(2), on the systems whose layouts are known. Elsewhere (Windows) the system chooses the source.
/// </remarks>
internal sealed class ManagedDatagramServer : IServerListener, IDatagramChannel
{
    /// <summary>The number of datagrams that are handled before the loop does other work.</summary>
    private const int MaxReceivesPerTurn = 32;

    private readonly Socket _socket;
    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(DatagramBatch.RoomSize, pinned: true);
    private readonly byte[] _replyBuffer = GC.AllocateUninitializedArray<byte>(DatagramBatch.RoomSize, pinned: true);
    private readonly IDatagramHandler _handler;
    private readonly bool _isTold;
    private SocketAddress _sender;
    private IPAddress? _destination;
    private int _interfaceIndex;
    private bool _delivering;
    private bool _closed;
    private long _bytesSent;

    private ManagedDatagramServer(EvioServer server, Socket socket, int index)
    {
        _socket = socket;
        _sender = new SocketAddress(socket.AddressFamily);
        Loop = server.Loops[index % server.NumLoops];
        LocalEndPoint = socket.LocalEndPoint!;
        _isTold = SocketDescriptors.IsAny(((IPEndPoint)LocalEndPoint).Address);
        _handler = new DatagramConnection(server, this, index);
    }

    public EventLoop Loop { get; }

    public EndPoint LocalEndPoint { get; }

    public long BytesSent => Volatile.Read(ref _bytesSent);

    internal static Task<IServerListener> BindAsync(EvioServer server, EvioAddress address, int index)
    {
        var socket = ManagedSockets.Bind(address, SocketType.Dgram, address.EndPoint);

        // So that a send does not wait either.
        socket.Blocking = false;
        return Task.FromResult<IServerListener>(new ManagedDatagramServer(server, socket, index));
    }

    public void Resume() => Loop.TryPostInternal(static server => _ = ((ManagedDatagramServer)server!).ReceiveAsync(), this);

    public Task CloseAsync()
    {
        var closed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var posted = Loop.TryPostInternal(
            _ =>
            {
                Close();
                closed.SetResult();
            },
            null);
        if (!posted)
        {
            // The loop has ended, and makes no calls any more.
            Close();
            closed.SetResult();
        }

        return closed.Task;
    }

    public EndPoint? GetDestination() =>
        _delivering && _destination is { } destination ? new IPEndPoint(destination, ((IPEndPoint)LocalEndPoint).Port) : null;

    public EndPoint? GetSender() => _delivering ? LocalEndPoint.Create(_sender) : null;

    /// <summary>Receives and delivers until the socket is closed. Everything but the receives runs on the loop.</summary>
    private async Task ReceiveAsync()
    {
        var failures = 0;
        for (var receives = 1; !_closed; receives++)
        {
            var length = -1;
            try
            {
                if (_isTold)
                {
                    // The remote end point is the address that stands for all, because a datagram may come from anywhere.
                    var result = await _socket.ReceiveMessageFromAsync(_buffer, SocketFlags.None, LocalEndPoint).ConfigureAwait(false);
                    Note(result);
                    length = result.ReceivedBytes;
                }
                else
                {
                    length = await _socket.ReceiveFromAsync(_buffer, SocketFlags.None, _sender).ConfigureAwait(false);
                }

                failures = 0;
            }
            catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
            {
                // The socket was closed, or the system reports the fate of an earlier reply (ICMP), which concerns no datagram that is
                // still to come.
            }

            if (length < 0 && ++failures == DatagramSocket.MaxFailures)
            {
                // As in DatagramSocket: a receive that fails so often fails for ever, or for long.
                failures = 0;
                await new ResumeOnLoop(Loop, DatagramSocket.Pause);
            }
            else if (length < 0 || !Loop.IsCurrent || receives % MaxReceivesPerTurn == 0)
            {
                await new ResumeOnLoop(Loop);
            }

            if (length >= 0 && !_closed)
            {
                Deliver(length);
            }
        }
    }

    private void Note(SocketReceiveMessageFromResult received)
    {
        // On any thread. The loop reads these fields when it delivers, which is the next thing that happens.
        _sender = received.RemoteEndPoint.Serialize();
        _destination = received.PacketInformation.Address;
        _interfaceIndex = received.PacketInformation.Interface;
        if (_destination is { AddressFamily: AddressFamily.InterNetwork } && LocalEndPoint.AddressFamily == AddressFamily.InterNetworkV6)
        {
            // In the form of the sender's address.
            _destination = _destination.MapToIPv6();
        }
    }

    private void Deliver(int length)
    {
        // The buffers belong to this thread until the end. So nothing that the handler or a listener of metrics calls may give the loop
        // away.
        using var hold = LoopHold.Begin();
        try
        {
            Loop.Meter.Received(length);
            _delivering = true;
            var replyLength = _handler.OnDatagram(_buffer.AsSpan(0, length), _replyBuffer);
            if (replyLength > 0)
            {
                Reply(_replyBuffer.AsSpan(0, replyLength));
            }
        }
        catch (Exception exception)
        {
            // The server receives later datagrams, whatever the exception is.
            Loop.Report(exception);
        }
        finally
        {
            _delivering = false;
        }
    }

    private void Reply(ReadOnlySpan<byte> reply)
    {
        try
        {
            var sent = SendFromDestination(reply);
            if (sent < 0)
            {
                sent = _socket.SendTo(reply, SocketFlags.None, _sender);
            }

            _bytesSent += sent;
            Loop.Meter.Sent(sent);
        }
        catch (SocketException)
        {
            // No room, or the sender cannot be reached: the reply is lost, as UDP permits.
        }
    }

    /// <summary>Sends from the address that the datagram came to.</summary>
    /// <returns>The number of bytes; below zero if that address is not known, or cannot be the source.</returns>
    private unsafe int SendFromDestination(ReadOnlySpan<byte> reply)
    {
        Span<byte> address = stackalloc byte[16];
        if (!_isTold || !Platform.HasPoller || _destination is null || !_destination.TryWriteBytes(address, out var size))
        {
            return -1;
        }

        Span<byte> control = stackalloc byte[PacketInfoFormat.MaxSize];
        var length = PacketInfoFormat.Current.Write(control, new PacketInfo(address[..size], address[..size], (uint)_interfaceIndex));
        if (length == 0)
        {
            return -1;
        }

        var handle = _socket.SafeHandle;
        var isHeld = false;
        try
        {
            handle.DangerousAddRef(ref isHeld);

            // SAFETY: all that the message points to is fixed or on this stack during the call, and the descriptor stays open.
            fixed (byte* name = _sender.Buffer.Span, bytes = reply, message = control)
            {
                var vector = new IoVector { Base = bytes, Length = (nuint)reply.Length };
                var header = new MessageHeader
                {
                    Name = name,
                    NameLength = (uint)_sender.Size,
                    Vectors = &vector,
                    VectorCount = 1,
                    Control = message,
                    ControlLength = (nuint)length,
                };
                return (int)Libc.sendmsg((int)handle.DangerousGetHandle(), &header, Platform.MSG_NOSIGNAL);
            }
        }
        finally
        {
            if (isHeld)
            {
                handle.DangerousRelease();
            }
        }
    }

    private void Close()
    {
        _closed = true;
        _socket.Dispose();
    }
}
