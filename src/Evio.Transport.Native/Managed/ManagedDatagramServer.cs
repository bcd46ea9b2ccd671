using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Managed;

/// <summary>
/// A UDP address of a server on <see cref="System.Net.Sockets"/>: one socket, whose datagrams all go to one loop, the n-th address's to the
/// n-th in turn.
/// </summary>
/// <remarks>
/// The BCL completes a receive on a thread of the pool, from where the datagram goes to the loop; it reuses what it needs for that, so that
/// datagrams cost no memory here either.
/// </remarks>
internal sealed class ManagedDatagramServer : IServerListener, IDatagramChannel
{
    /// <summary>How many datagrams are handled before the loop's other work gets its turn.</summary>
    private const int MaxReceivesPerTurn = 32;

    private readonly Socket _socket;
    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(DatagramBatch.RoomSize, pinned: true);
    private readonly byte[] _replyBuffer = GC.AllocateUninitializedArray<byte>(DatagramBatch.RoomSize, pinned: true);
    private readonly SocketAddress _sender;
    private readonly IDatagramHandler _handler;
    private bool _delivering;
    private bool _closed;
    private long _bytesSent;

    private ManagedDatagramServer(EvioServer server, Socket socket, int index)
    {
        _socket = socket;
        _sender = new SocketAddress(socket.AddressFamily);
        Loop = server.Loops[index % server.NumLoops];
        LocalEndPoint = socket.LocalEndPoint!;
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
            // The loop has ended, and calls nobody any more.
            Close();
            closed.SetResult();
        }

        return closed.Task;
    }

    public EndPoint? GetSender() => _delivering ? LocalEndPoint.Create(_sender) : null;

    /// <summary>Receives and delivers until the socket is closed. All but the receives themselves happens on the loop.</summary>
    private async Task ReceiveAsync()
    {
        var failures = 0;
        for (var receives = 1; !_closed; receives++)
        {
            var length = -1;
            try
            {
                length = await _socket.ReceiveFromAsync(_buffer, SocketFlags.None, _sender).ConfigureAwait(false);
                failures = 0;
            }
            catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
            {
                // The socket was closed, or the system reports the fate of an earlier reply (ICMP), which concerns no datagram that is
                // still to come.
            }

            if (length < 0 && ++failures == DatagramSocket.MaxFailures)
            {
                // As there: what fails so often fails for ever, or for long.
                failures = 0;
                await new LoopTurn(Loop, DatagramSocket.Pause);
            }
            else if (length < 0 || !Loop.IsCurrent || receives % MaxReceivesPerTurn == 0)
            {
                await new LoopTurn(Loop);
            }

            if (length >= 0 && !_closed)
            {
                Deliver(length);
            }
        }
    }

    private void Deliver(int length)
    {
        Loop.Meter.Received(length);
        _delivering = true;
        var replyLength = _handler.OnDatagram(_buffer.AsSpan(0, length), _replyBuffer);
        _delivering = false;
        if (replyLength > 0)
        {
            Reply(_replyBuffer.AsSpan(0, replyLength));
        }
    }

    private void Reply(ReadOnlySpan<byte> reply)
    {
        try
        {
            var sent = _socket.SendTo(reply, SocketFlags.None, _sender);
            _bytesSent += sent;
            Loop.Meter.Sent(sent);
        }
        catch (SocketException)
        {
            // No room, or the sender cannot be reached: the reply is lost, as UDP permits.
        }
    }

    private void Close()
    {
        _closed = true;
        _socket.Dispose();
    }
}
