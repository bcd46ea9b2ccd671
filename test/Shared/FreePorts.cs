using System.Net;
using System.Net.Sockets;

namespace Evio.Transport.Testing;

/// <summary>Ports of the loopback address for programs that have to be told where to listen.</summary>
internal static class FreePorts
{
    /// <summary>Ports that are free for TCP and UDP, below those that the system gives to clients, so that none of those gets in between.</summary>
    public static int[] Find(int count)
    {
        var free = new HashSet<int>();
        while (free.Count < count)
        {
            var port = Random.Shared.Next(10_000, 30_000);
            using var tcp = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            using var udp = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            try
            {
                tcp.Bind(new IPEndPoint(IPAddress.Loopback, port));
                udp.Bind(new IPEndPoint(IPAddress.Loopback, port));
                free.Add(port);
            }
            catch (SocketException exception) when (exception.SocketErrorCode is SocketError.AddressAlreadyInUse or SocketError.AccessDenied)
            {
                // Another one then.
            }
        }

        return [.. free];
    }
}
