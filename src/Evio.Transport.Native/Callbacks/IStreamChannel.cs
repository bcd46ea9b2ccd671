using System.Net;
using System.Net.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// What the callback API needs of a stream connection: a <see cref="StreamSocket"/> on a poller, or its counterpart on
/// <see cref="System.Net.Sockets"/>. Both report readiness in the same way, so that everything above is written once.
/// </summary>
internal interface IStreamChannel
{
    EventLoop Loop { get; }

    EndPoint? LocalEndPoint { get; }

    EndPoint? RemoteEndPoint { get; }

    /// <inheritdoc cref="StreamSocket.Start"/>
    void Start(IStreamHandler handler);

    /// <summary>Sets what the options ask for. On the loop.</summary>
    /// <exception cref="SocketException">The system refused one.</exception>
    void Apply(in ConnectionOptions options);

    /// <inheritdoc cref="StreamSocket.Receive(Span{byte})"/>
    IoResult Receive(Span<byte> buffer);

    /// <inheritdoc cref="StreamSocket.Send(ReadOnlySpan{byte})"/>
    IoResult Send(ReadOnlySpan<byte> buffer);

    /// <inheritdoc cref="StreamSocket.Send(ReadOnlySpan{ReadOnlyMemory{byte}})"/>
    IoResult Send(ReadOnlySpan<ReadOnlyMemory<byte>> buffers);

    /// <summary>The number of bytes that <see cref="Send(ReadOnlySpan{byte})"/> has accepted and that are not with the kernel yet.</summary>
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
