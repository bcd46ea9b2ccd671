using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native;

/// <summary>The options of one connection; <see cref="Events.Opened"/> may change them.</summary>
/// <remarks>
/// evio's <c>ReuseInputBuffer</c> has no counterpart: the input is always a span over the loop's buffer, and a handler that keeps it has to
/// copy it.
/// </remarks>
public struct ConnectionOptions
{
    /// <summary>The defaults: no keep-alive probes, no idle time-out, marks at 1 MiB and 256 KiB.</summary>
    public ConnectionOptions()
    {
    }

    /// <summary>How long a TCP connection is silent before the kernel probes the peer (<c>TCP_KEEPIDLE</c>, tcp(7)).</summary>
    /// <remarks>
    /// Zero, the default, sends no probes. Rounded up to seconds; at most 32767 s. Has no effect on Unix-domain connections.
    /// </remarks>
    public TimeSpan TcpKeepAlive { get; set; }

    /// <summary>
    /// The time between two probes (<c>TCP_KEEPINTVL</c>). Zero, the default, leaves the system's. Rounded up to seconds; at most 32767 s.
    /// </summary>
    public TimeSpan TcpKeepAliveInterval { get; set; }

    /// <summary>
    /// The number of unanswered probes that end the connection (<c>TCP_KEEPCNT</c>), up to 127. Zero, the default, leaves the system's.
    /// </summary>
    public int TcpKeepAliveCount { get; set; }

    /// <summary>
    /// The time without a received or sent byte after which the connection is closed, with a <see cref="TimeoutException"/>. Zero, the
    /// default, never closes it.
    /// </summary>
    public TimeSpan IdleTimeout { get; set; }

    /// <summary>The number of pending output bytes at which no more input is read. Defaults to 1 MiB; at least 1.</summary>
    public int HighWaterMark { get; set; } = 1024 * 1024;

    /// <summary>
    /// The number of pending output bytes below which reading goes on. Defaults to 256 KiB; from 1 to <see cref="HighWaterMark"/>.
    /// </summary>
    public int LowWaterMark { get; set; } = 256 * 1024;

    /// <summary>
    /// The size of the kernel's receive buffer (<c>SO_RCVBUF</c>, socket(7)), in bytes. Zero, the default, leaves it to the kernel.
    /// </summary>
    public int ReceiveBufferSize { get; set; }

    /// <summary>
    /// The size of the kernel's send buffer (<c>SO_SNDBUF</c>, socket(7)), in bytes. Zero, the default, leaves it to the kernel.
    /// </summary>
    public int SendBufferSize { get; set; }

    /// <summary>The options of the socket.</summary>
    internal readonly SocketSettings Socket => new(TcpKeepAlive, TcpKeepAliveInterval, TcpKeepAliveCount, ReceiveBufferSize, SendBufferSize);

    /// <exception cref="ArgumentException">An option is out of its range; the message names it.</exception>
    internal readonly void Validate()
    {
        Require(TcpKeepAlive >= TimeSpan.Zero, nameof(TcpKeepAlive), TcpKeepAlive);
        Require(TcpKeepAliveInterval >= TimeSpan.Zero, nameof(TcpKeepAliveInterval), TcpKeepAliveInterval);
        Require(TcpKeepAliveCount is >= 0 and <= 127, nameof(TcpKeepAliveCount), TcpKeepAliveCount);
        Require(IdleTimeout >= TimeSpan.Zero, nameof(IdleTimeout), IdleTimeout);
        Require(HighWaterMark >= 1, nameof(HighWaterMark), HighWaterMark);
        Require(LowWaterMark >= 1 && LowWaterMark <= HighWaterMark, nameof(LowWaterMark), LowWaterMark);
        Require(ReceiveBufferSize >= 0, nameof(ReceiveBufferSize), ReceiveBufferSize);
        Require(SendBufferSize >= 0, nameof(SendBufferSize), SendBufferSize);

        static void Require(bool holds, string option, object value)
        {
            if (!holds)
            {
                throw new ArgumentException($"{nameof(ConnectionOptions)}.{option} is {value}, which is out of its range.");
            }
        }
    }
}
