using System.Net;
using System.Net.Sockets;
using System.Runtime.ExceptionServices;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// Looks up the addresses of a host, as <see cref="Dns.GetHostAddressesAsync(string, AddressFamily, CancellationToken)"/> does.
/// </summary>
internal delegate Task<IPAddress[]> Resolver(string host, AddressFamily family, CancellationToken cancellationToken);

/// <summary>Connects to hosts by their names.</summary>
internal static class NameResolution
{
    /// <summary>Tries the addresses of a name, in the order of the resolver's answer (RFC 6724), until one connects.</summary>
    /// <exception cref="SocketException">
    /// There is no such name, or no address could be connected to. Then it is the exception of the last address.
    /// </exception>
    internal static async Task ConnectAsync(DnsEndPoint endPoint, Resolver resolve, Func<IPEndPoint, Task> connect, CancellationToken cancellationToken)
    {
        SocketException? failure = null;
        foreach (var address in await LookUpAsync(endPoint, resolve, cancellationToken).ConfigureAwait(false))
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

        ExceptionDispatchInfo.Throw(failure ?? Unknown(endPoint, SocketError.NoData));
    }

    private static async Task<IPAddress[]> LookUpAsync(DnsEndPoint endPoint, Resolver resolve, CancellationToken cancellationToken)
    {
        try
        {
            return await resolve(endPoint.Host, endPoint.AddressFamily, cancellationToken).ConfigureAwait(false);
        }
        catch (SocketException exception)
        {
            throw Unknown(endPoint, exception.SocketErrorCode);
        }
    }

    private static SocketException Unknown(DnsEndPoint endPoint, SocketError error) =>
        new((int)error, $"No connection to {endPoint.Host}:{endPoint.Port} could be made: '{endPoint.Host}' could not be looked up ({error}).");
}
