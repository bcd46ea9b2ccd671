using System.Buffers;
using System.Net;

namespace Evio.Transport.Native;

/// <summary>A connection of an <see cref="EvioServer"/>, or the sender of a datagram, as its callbacks see it.</summary>
/// <remarks>
/// <para>
/// <see cref="Output"/> and <see cref="Write"/> belong to the callbacks, which run on the connection's loop. <see cref="Wake"/>,
/// <see cref="SendAsync"/>, <see cref="ShutdownSend"/> and <see cref="Close"/> may be called from any thread, at any time.
/// </para>
/// <para>
/// For UDP there is one object for each socket, and one socket per loop and address. The object stands for one sender after the other: for
/// the sender of the datagram with which <see cref="Events.Data"/> was called, until the call returns. <see cref="Context"/> and the
/// counters belong to the socket then.
/// </para>
/// </remarks>
public abstract class Connection
{
    private protected Connection()
    {
    }

    /// <summary>An object that the server's code keeps with the connection. Not used by this library.</summary>
    public object? Context { get; set; }

    /// <summary>
    /// The position, from 0, of the address at which the connection came in, among the addresses that the server was given; −1 for dialled
    /// connections.
    /// </summary>
    public abstract int AddressIndex { get; }

    /// <summary>The loop that the connection belongs to.</summary>
    public abstract EventLoop Loop { get; }

    /// <summary>
    /// The local address. In a datagram's callbacks it is the address to which the datagram came, where the system reports that, and from
    /// which the reply is sent.
    /// </summary>
    /// <remarks>
    /// Outside of these callbacks, and where the system does not report it, it is the address to which the UDP socket is bound.
    /// </remarks>
    public abstract EndPoint? LocalEndPoint { get; }

    /// <summary>
    /// The peer's address. For UDP it is the address of the datagram's sender, and <see langword="null"/> outside of the datagram's
    /// callbacks.
    /// </summary>
    public abstract EndPoint? RemoteEndPoint { get; }

    /// <summary>
    /// The writer for the output of callbacks, straight into the blocks that are sent when the callback returns. The output follows all
    /// pending output.
    /// </summary>
    /// <exception cref="InvalidOperationException">
    /// The connection is closed or detached; or (from the writer's methods) the caller is not in a callback on the connection's loop.
    /// </exception>
    public abstract IBufferWriter<byte> Output { get; }

    /// <summary>The number of bytes received so far. From any thread.</summary>
    public abstract long BytesReceived { get; }

    /// <summary>The number of bytes that the kernel has taken so far. From any thread.</summary>
    public abstract long BytesSent { get; }

    /// <summary>The number of output bytes that the kernel has not taken yet. On the loop.</summary>
    public abstract long PendingOutput { get; }

    /// <summary>Writes output from within a callback; the same as writing to <see cref="Output"/>.</summary>
    /// <param name="data">The bytes, which are copied.</param>
    /// <exception cref="InvalidOperationException">
    /// The caller is not in a callback on the connection's loop, or the connection is closed or detached.
    /// </exception>
    public void Write(ReadOnlySpan<byte> data) => Output.Write(data);

    /// <summary>
    /// Makes the connection's loop call <see cref="Events.Data"/> with empty input, once for each call of this method. From any thread.
    /// </summary>
    /// <returns>
    /// False when <see cref="Events.Data"/> will not be called. The connection or the server is closed, or the connection is detached. Or
    /// it stands for a UDP peer, which is no connection that could be woken.
    /// </returns>
    public abstract bool Wake();

    /// <summary>Sends output from any thread, after all pending output.</summary>
    /// <param name="data">The bytes. They must not change until the task completes.</param>
    /// <param name="cancellationToken">
    /// Withdraws the bytes if the kernel has got none of them yet: nothing of them is sent, and the task is cancelled. Bytes that have
    /// begun to be sent are sent to the end, because half of a message would spoil the stream. In both cases the memory belongs to the
    /// caller again when the task completes.
    /// </param>
    /// <returns>
    /// A task that completes when the kernel has taken the bytes. It fails with an <see cref="IOException"/> when the connection ends
    /// before.
    /// </returns>
    /// <exception cref="OperationCanceledException">The bytes were withdrawn. (From the task.)</exception>
    /// <exception cref="NotSupportedException">The peer is a UDP peer, whose answers are written in <see cref="Events.Data"/>.</exception>
    public abstract Task SendAsync(ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default);

    /// <summary>
    /// Half-closes the connection: the peer sees the end of the output after all pending output, and may go on sending. From any thread.
    /// Without effect for UDP.
    /// </summary>
    public abstract void ShutdownSend();

    /// <summary>
    /// Closes the connection when the pending output is sent, like <see cref="EvioAction.Close"/>. From any thread. Without effect for UDP.
    /// </summary>
    public abstract void Close();
}
