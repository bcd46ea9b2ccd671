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
/// For UDP there is one object for each socket, which is one per loop and address, and stands for one sender after the other: for that of the
/// datagram that <see cref="Events.Data"/> was called with, until it returns. <see cref="Context"/> is then the socket's, and so are the counters.
/// </para>
/// </remarks>
public abstract class Connection
{
    private protected Connection()
    {
    }

    /// <summary>Whatever the server's code wants to keep with the connection. Not used by this library.</summary>
    public object? Context { get; set; }

    /// <summary>The position of the address that the connection came in by among those that the server was given, from 0; −1 for dialled ones.</summary>
    public abstract int AddressIndex { get; }

    /// <summary>The loop that the connection belongs to.</summary>
    public abstract EventLoop Loop { get; }

    /// <summary>
    /// This side's address. In a datagram's callbacks that is the address which the datagram came to, where the system tells it, and which the reply comes from.
    /// </summary>
    /// <remarks>Outside of its callbacks, and when it is not told, it is the address that the UDP socket is bound to.</remarks>
    public abstract EndPoint? LocalEndPoint { get; }

    /// <summary>The peer's address. For UDP that of the datagram's sender, and <see langword="null"/> outside of its callbacks.</summary>
    public abstract EndPoint? RemoteEndPoint { get; }

    /// <summary>
    /// Where callbacks write their output, straight into the blocks that are sent when the callback returns. It comes after all output that is pending.
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
    /// Has <see cref="Events.Data"/> called with empty input on the connection's loop, once for each call. From any thread.
    /// </summary>
    /// <returns>
    /// False when it will not be called: the connection or the server is closed, the connection is detached, or it is a UDP peer, which is no connection
    /// that could be woken.
    /// </returns>
    public abstract bool Wake();

    /// <summary>Sends output from any thread, after all output that is pending.</summary>
    /// <param name="data">The bytes. They must stay as they are until the task completes.</param>
    /// <param name="cancellationToken">
    /// Withdraws the bytes if none of them has been given to the kernel yet: nothing of them is sent, and the task is cancelled. Bytes that have begun to be sent are sent to the end, since half of a message
    /// would spoil the stream. In both cases the memory is the caller's again when the task completes.
    /// </param>
    /// <returns>A task that completes when the kernel has taken the bytes. It fails with an <see cref="IOException"/> when the connection ends before.</returns>
    /// <exception cref="OperationCanceledException">The bytes were withdrawn. (From the task.)</exception>
    /// <exception cref="NotSupportedException">The peer is a UDP peer, whose answers are written in <see cref="Events.Data"/>.</exception>
    public abstract Task SendAsync(ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default);

    /// <summary>Half-closes: the peer sees the end of the output after all that is pending, and may go on sending. From any thread. Without effect for UDP.</summary>
    public abstract void ShutdownSend();

    /// <summary>Closes the connection when the pending output is sent, like <see cref="EvioAction.Close"/>. From any thread. Without effect for UDP.</summary>
    public abstract void Close();
}
