using System.Buffers;
using System.Net;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// The sender of a datagram, as callbacks see it: one object for each socket, which stands for one sender after the other.
/// </summary>
internal sealed class DatagramConnection(EvioServer server, IDatagramChannel channel, int addressIndex) : Connection, IDatagramHandler
{
    private readonly DatagramReply _reply = new(channel.Loop);
    private EndPoint? _localEndPoint;
    private EndPoint? _remoteEndPoint;
    private long _received;

    public override int AddressIndex => addressIndex;

    public override EventLoop Loop => channel.Loop;

    /// <summary>
    /// Created when it is asked for, as <see cref="RemoteEndPoint"/> is. Outside of the callbacks, and if the address to which the datagram
    /// came is not known, it is the bound address.
    /// </summary>
    public override EndPoint? LocalEndPoint => (Loop.IsCurrent ? _localEndPoint ??= channel.GetDestination() : null) ?? channel.LocalEndPoint;

    /// <summary>Created when it is asked for, because most handlers only answer, and an answer needs no object.</summary>
    /// <remarks>
    /// On the loop only. Another thread might create one sender's address while the next datagram is delivered, and leave it behind for
    /// that one.
    /// </remarks>
    public override EndPoint? RemoteEndPoint => Loop.IsCurrent ? _remoteEndPoint ??= channel.GetSender() : null;

    public override IBufferWriter<byte> Output => _reply;

    public override long BytesReceived => Volatile.Read(ref _received);

    public override long BytesSent => channel.BytesSent;

    public override long PendingOutput => _reply.Length;

    internal IDatagramChannel Channel => channel;

    public override bool Wake() => false;

    public override Task SendAsync(ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default) => throw new NotSupportedException(
        "A UDP peer is no connection that could be sent to later: " +
        $"what is written in {nameof(Events)}.{nameof(Events.Data)} is the reply to its datagram.");

    public override void ShutdownSend()
    {
        // There is no connection whose end a peer could see.
    }

    public override void Close()
    {
        // As for ShutdownSend.
    }

    int IDatagramHandler.OnDatagram(ReadOnlySpan<byte> datagram, Memory<byte> reply)
    {
        _received += datagram.Length;
        if (server.Events.Data is not { } data)
        {
            return 0;
        }

        _reply.Begin(reply);
        try
        {
            // Close and Detach have no effect: there is nothing to close or to detach.
            server.Handle(data(this, datagram));
            if (_reply.Length > 0)
            {
                server.Events.PreWrite?.Invoke(this);
            }

            return _reply.Length;
        }
        catch (Exception exception)
        {
            Fail(exception);
            return 0;
        }
        finally
        {
            _reply.End();
            _localEndPoint = null;
            _remoteEndPoint = null;
            AmbientState.Restore();
        }
    }

    /// <summary>
    /// Reports an exception, which costs the sender its reply. The sender of a datagram must not be able to stop the server.
    /// </summary>
    private void Fail(Exception exception) => server.Tell(server.Events.DatagramFailed, this, exception);
}
