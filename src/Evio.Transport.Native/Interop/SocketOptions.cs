using System.Net.Sockets;

namespace Evio.Transport.Native.Interop;

/// <summary>Options of connected stream sockets (setsockopt(2)).</summary>
internal static unsafe class SocketOptions
{
    /// <summary>The largest number of seconds that tcp(7) takes for the times of keep-alive probes.</summary>
    private const int MaxSeconds = 32767;

    internal static void Apply(int descriptor, bool isTcp, in ConnectionOptions options)
    {
        if (isTcp && options.TcpKeepAlive > TimeSpan.Zero)
        {
            Set(descriptor, Platform.SOL_SOCKET, Platform.SO_KEEPALIVE, 1, nameof(options.TcpKeepAlive));
            Set(descriptor, Platform.IPPROTO_TCP, Platform.TCP_KEEPIDLE, Seconds(options.TcpKeepAlive), nameof(options.TcpKeepAlive));
            if (options.TcpKeepAliveInterval > TimeSpan.Zero)
            {
                Set(descriptor, Platform.IPPROTO_TCP, Platform.TCP_KEEPINTVL, Seconds(options.TcpKeepAliveInterval), nameof(options.TcpKeepAliveInterval));
            }

            if (options.TcpKeepAliveCount > 0)
            {
                Set(descriptor, Platform.IPPROTO_TCP, Platform.TCP_KEEPCNT, options.TcpKeepAliveCount, nameof(options.TcpKeepAliveCount));
            }
        }

        if (options.ReceiveBufferSize > 0)
        {
            Set(descriptor, Platform.SOL_SOCKET, Platform.SO_RCVBUF, options.ReceiveBufferSize, nameof(options.ReceiveBufferSize));
        }

        if (options.SendBufferSize > 0)
        {
            Set(descriptor, Platform.SOL_SOCKET, Platform.SO_SNDBUF, options.SendBufferSize, nameof(options.SendBufferSize));
        }
    }

    /// <summary>Whole seconds, rounded up: half a second of keep-alive is not none.</summary>
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
            throw new SocketException((int)Errno.ToSocketError(errno), $"{nameof(ConnectionOptions)}.{name} could not be set to {value} (errno {errno}).");
        }
    }
}
