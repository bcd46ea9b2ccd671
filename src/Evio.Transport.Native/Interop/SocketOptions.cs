using System.Net.Sockets;

namespace Evio.Transport.Native.Interop;

/// <summary>The options that a server may set for each of its connections (setsockopt(2)). Zero keeps the system's value.</summary>
/// <param name="TcpKeepAlive">How long a TCP connection is silent before the kernel probes the peer; zero for no probes.</param>
/// <param name="TcpKeepAliveInterval">The time between two probes.</param>
/// <param name="TcpKeepAliveCount">How many unanswered probes end the connection.</param>
/// <param name="ReceiveBufferSize">In bytes.</param>
/// <param name="SendBufferSize">In bytes.</param>
internal readonly record struct SocketSettings(
    TimeSpan TcpKeepAlive, TimeSpan TcpKeepAliveInterval, int TcpKeepAliveCount, int ReceiveBufferSize, int SendBufferSize);

/// <summary>Sets options of connected stream sockets (setsockopt(2)).</summary>
internal static unsafe class SocketOptions
{
    /// <summary>The largest number of seconds that tcp(7) takes for the times of keep-alive probes.</summary>
    private const int MaxSeconds = 32767;

    internal static void Apply(int descriptor, bool isTcp, in SocketSettings settings)
    {
        if (isTcp && settings.TcpKeepAlive > TimeSpan.Zero)
        {
            Set(descriptor, Platform.SOL_SOCKET, Platform.SO_KEEPALIVE, 1, nameof(settings.TcpKeepAlive));
            Set(descriptor, Platform.IPPROTO_TCP, Platform.TCP_KEEPIDLE, Seconds(settings.TcpKeepAlive), nameof(settings.TcpKeepAlive));
            if (settings.TcpKeepAliveInterval > TimeSpan.Zero)
            {
                Set(descriptor, Platform.IPPROTO_TCP, Platform.TCP_KEEPINTVL, Seconds(settings.TcpKeepAliveInterval), nameof(settings.TcpKeepAliveInterval));
            }

            if (settings.TcpKeepAliveCount > 0)
            {
                Set(descriptor, Platform.IPPROTO_TCP, Platform.TCP_KEEPCNT, settings.TcpKeepAliveCount, nameof(settings.TcpKeepAliveCount));
            }
        }

        if (settings.ReceiveBufferSize > 0)
        {
            Set(descriptor, Platform.SOL_SOCKET, Platform.SO_RCVBUF, settings.ReceiveBufferSize, nameof(settings.ReceiveBufferSize));
        }

        if (settings.SendBufferSize > 0)
        {
            Set(descriptor, Platform.SOL_SOCKET, Platform.SO_SNDBUF, settings.SendBufferSize, nameof(settings.SendBufferSize));
        }
    }

    /// <summary>Rounds up to whole seconds, from 1 to <see cref="MaxSeconds"/>. Half a second of keep-alive must not become none.</summary>
    internal static int Seconds(TimeSpan time) => (int)Math.Clamp(Math.Ceiling(time.TotalSeconds), 1, MaxSeconds);

    internal static void SetBlocking(int descriptor)
    {
        if (!SocketCalls.SetNonBlocking(descriptor, false))
        {
            throw Errno.ToException(Errno.Last, "The socket could not be made blocking.");
        }
    }

    private static void Set(int descriptor, int level, int option, int value, string name)
    {
        if (Libc.setsockopt(descriptor, level, option, &value, sizeof(int)) < 0)
        {
            var errno = Errno.Last;
            throw new SocketException((int)Errno.ToSocketError(errno), $"{name} could not be set to {value} (errno {errno}).");
        }
    }
}
