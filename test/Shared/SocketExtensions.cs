using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Evio.Transport.Testing;

/// <summary>A plain client at the other end of the transport.</summary>
internal static class SocketExtensions
{
    public static async Task<Socket> ConnectAsync(EndPoint endPoint, Action<Socket>? configure = null)
    {
        var socket = new Socket(
            endPoint.AddressFamily, SocketType.Stream, endPoint is UnixDomainSocketEndPoint ? ProtocolType.Unspecified : ProtocolType.Tcp);
        try
        {
            if (endPoint is not UnixDomainSocketEndPoint)
            {
                socket.NoDelay = true;
            }

            configure?.Invoke(socket);
            await socket.ConnectAsync(endPoint).OrTimeout();
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Reads the beginning of Linux's struct tcp_info (tcp(7), <c>TCP_INFO</c>).</summary>
    public static void ReadTcpInfo(this Socket socket, Span<byte> info)
    {
        const int TcpInfo = 11;
        _ = socket.GetRawSocketOption((int)SocketOptionLevel.Tcp, TcpInfo, info);
    }

    public static async Task SendAllAsync(this Socket socket, ReadOnlyMemory<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            bytes = bytes[await socket.SendAsync(bytes)..];
        }
    }

    public static Task SendAllAsync(this Socket socket, string text) => socket.SendAllAsync(Encoding.UTF8.GetBytes(text));

    public static async Task<byte[]> ReceiveExactlyAsync(this Socket socket, int count)
    {
        var bytes = new byte[count];
        for (var received = 0; received < count;)
        {
            var n = await socket.ReceiveAsync(bytes.AsMemory(received));
            if (n == 0)
            {
                throw new EndOfStreamException($"The connection ended after {received} of {count} bytes.");
            }

            received += n;
        }

        return bytes;
    }

    public static async Task<byte[]> ReceiveToEndAsync(this Socket socket)
    {
        using var all = new MemoryStream();
        var buffer = new byte[64 * 1024];
        for (int n; (n = await socket.ReceiveAsync(buffer)) > 0;)
        {
            all.Write(buffer, 0, n);
        }

        return all.ToArray();
    }

    /// <summary>Reads text up to and including <paramref name="mark"/>, byte by byte so that nothing beyond it is taken.</summary>
    public static async Task<string> ReceiveUntilAsync(this Socket socket, string mark)
    {
        var text = new StringBuilder();
        while (!text.ToString().EndsWith(mark, StringComparison.Ordinal))
        {
            text.Append((char)(await socket.ReceiveExactlyAsync(1))[0]);
        }

        return text.ToString();
    }

    /// <summary>Reads until the connection ends, which it must by a reset.</summary>
    public static async Task<SocketError> ReceiveErrorAsync(this Socket socket)
    {
        var exception = await Assert.ThrowsAsync<SocketException>(socket.ReceiveToEndAsync);
        return exception.SocketErrorCode;
    }

    /// <summary>Closes with RST instead of FIN.</summary>
    public static void Reset(this Socket socket)
    {
        socket.LingerState = new LingerOption(true, 0);
        socket.Dispose();
    }
}
