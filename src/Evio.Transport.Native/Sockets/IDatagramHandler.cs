using System.Net;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// A bound UDP socket as its handler sees it: <see cref="DatagramSocket"/>, or its counterpart on <see cref="System.Net.Sockets"/>.
/// </summary>
internal interface IDatagramChannel
{
    /// <summary>The loop that the datagrams are delivered on.</summary>
    EventLoop Loop { get; }

    /// <summary>The bound address.</summary>
    EndPoint LocalEndPoint { get; }

    /// <summary>The number of bytes of replies that the kernel has taken. From any thread.</summary>
    long BytesSent { get; }

    /// <summary>
    /// Returns the destination of the datagram that is being delivered, in a new object. <see langword="null"/> outside of
    /// <see cref="IDatagramHandler.OnDatagram"/>, when the destination is not known, and when the socket is bound to one address.
    /// </summary>
    EndPoint? GetDestination();

    /// <summary>
    /// Returns the sender of the datagram that is being delivered, in a new object. During <see cref="IDatagramHandler.OnDatagram"/>.
    /// </summary>
    EndPoint? GetSender();
}

/// <summary>Receives the datagrams of an <see cref="IDatagramChannel"/>, one at a time.</summary>
internal interface IDatagramHandler
{
    /// <summary>Handles a datagram. On the channel's loop.</summary>
    /// <param name="datagram">The content, which may be empty; valid during the call.</param>
    /// <param name="reply">Room for a reply: <see cref="DatagramBatch.RoomSize"/> bytes.</param>
    /// <returns>The length of the reply to the sender; 0 for none.</returns>
    int OnDatagram(ReadOnlySpan<byte> datagram, Memory<byte> reply);
}
