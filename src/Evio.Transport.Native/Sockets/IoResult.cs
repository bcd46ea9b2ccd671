using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native;

/// <summary>What a receive or a send on a non-blocking socket came to: a number of bytes, or why there were none.</summary>
public readonly struct IoResult
{
    // A count from 0 on, or an error number below 0.
    private readonly int _value;

    private IoResult(int value) => _value = value;

    /// <summary>Whether bytes were transferred, or the end of the input was reached.</summary>
    public bool IsSuccess => _value >= 0;

    /// <summary>The number of bytes transferred. 0 after a failure, and after a receive at the end of the peer's output (recv(2)).</summary>
    public int Count => Math.Max(_value, 0);

    /// <summary>Whether the kernel has nothing to give, or no room, at the moment; an event will tell when that changes.</summary>
    public bool WouldBlock => _value == -Errno.EAGAIN;

    /// <summary>
    /// Why nothing was transferred; <see cref="SocketError.Success"/> otherwise. A socket that was closed here answers
    /// <see cref="SocketError.OperationAborted"/>.
    /// </summary>
    public SocketError Error => Errno.ToSocketError(Math.Max(-_value, 0));

    internal static IoResult Closed => FromError(Errno.EBADF);

    internal static IoResult WouldBlockResult => FromError(Errno.EAGAIN);

    internal static IoResult FromCount(nint count) => new((int)count);

    internal static IoResult FromError(int errno) => new(-errno);

    /// <inheritdoc/>
    public override string ToString() => IsSuccess ? $"{Count} bytes" : Error.ToString();
}
