using System.Net;
using System.Net.Sockets;
using System.Runtime.ExceptionServices;

namespace Evio.Transport.Native.Sockets;

/// <summary>Connects to hosts by their names.</summary>
internal static class NameResolution
{
    /// <summary>Tries the addresses of a name, in the order of the resolver's answer (RFC 6724), until one connects.</summary>
    /// <exception cref="SocketException">There is no such name, or no address could be connected to: the last one's reason.</exception>
    internal static async Task ConnectAsync(DnsEndPoint endPoint, Func<IPEndPoint, Task> connect, CancellationToken cancellationToken)
    {
        var addresses = await Dns.GetHostAddressesAsync(endPoint.Host, endPoint.AddressFamily, cancellationToken).ConfigureAwait(false);
        SocketException? failure = null;
        foreach (var address in addresses)
        {
            try
            {
                await connect(new IPEndPoint(address, endPoint.Port)).ConfigureAwait(false);
                return;
            }
            catch (SocketException exception)
            {
                failure = exception;
            }
        }

        ExceptionDispatchInfo.Throw(failure ?? new SocketException((int)SocketError.HostNotFound));
    }
}
