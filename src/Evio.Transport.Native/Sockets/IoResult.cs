using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native;

/// <summary>The result of a receive or a send on a non-blocking socket: a number of bytes, or the reason why there were none.</summary>
public readonly struct IoResult
{
    private readonly int _count;
    private readonly SocketError _error;

    private IoResult(int count, SocketError error)
    {
        _count = count;
        _error = error;
    }

    /// <summary>Whether bytes were transferred, or the end of the input was reached.</summary>
    public bool IsSuccess => _error == SocketError.Success;

    /// <summary>
    /// The number of bytes transferred. 0 after a failure, and after a receive at the end of the peer's output (recv(2)).
    /// </summary>
    public int Count => _count;

    /// <summary>Whether the kernel has no data, or no room, at the moment. An event reports when that changes.</summary>
    public bool WouldBlock => _error == SocketError.WouldBlock;

    /// <summary>
    /// The reason why nothing was transferred; <see cref="SocketError.Success"/> otherwise. For a socket that was closed on this side it is
    /// <see cref="SocketError.OperationAborted"/>.
    /// </summary>
    public SocketError Error => _error;

    internal static IoResult Closed => FromError(SocketError.OperationAborted);

    internal static IoResult WouldBlockResult => FromError(SocketError.WouldBlock);

    internal static IoResult FromCount(nint count) => new((int)count, SocketError.Success);

    internal static IoResult FromError(int errno) => FromError(Errno.ToSocketError(errno));

    internal static IoResult FromError(SocketError error) => new(0, error);

    /// <inheritdoc/>
    public override string ToString() => IsSuccess ? $"{Count} bytes" : Error.ToString();
}
