using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// A stream connection of a loop as its handler sees it: <see cref="StreamSocket"/>, or its counterpart on
/// <see cref="System.Net.Sockets"/>. Both report readiness in the same way, so that the code above them is written once.
/// </summary>
internal interface IStreamChannel
{
    EventLoop Loop { get; }

    EndPoint? LocalEndPoint { get; }

    EndPoint? RemoteEndPoint { get; }

    /// <inheritdoc cref="StreamSocket.Start"/>
    void Start(IStreamHandler handler);

    /// <summary>Sets the socket's options. On the loop.</summary>
    /// <exception cref="SocketException">The system refused one.</exception>
    void Apply(in SocketSettings settings);

    /// <inheritdoc cref="StreamSocket.Receive(Span{byte})"/>
    IoResult Receive(Span<byte> buffer);

    /// <inheritdoc cref="StreamSocket.Send(ReadOnlySpan{byte})"/>
    IoResult Send(ReadOnlySpan<byte> buffer);

    /// <inheritdoc cref="StreamSocket.Send(ReadOnlySpan{ReadOnlyMemory{byte}})"/>
    IoResult Send(ReadOnlySpan<ReadOnlyMemory<byte>> buffers);

    /// <summary>
    /// The number of bytes that <see cref="Send(ReadOnlySpan{byte})"/> has accepted and that the kernel does not have yet.
    /// </summary>
    int Unsent { get; }

    /// <inheritdoc cref="StreamSocket.ShutdownSend"/>
    void ShutdownSend();

    /// <inheritdoc cref="StreamSocket.Reset"/>
    void Reset();

    /// <inheritdoc cref="StreamSocket.Close"/>
    void Close();

    /// <inheritdoc cref="StreamSocket.Detach"/>
    Socket Detach();
}
