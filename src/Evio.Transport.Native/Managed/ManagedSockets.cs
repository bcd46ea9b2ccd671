using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Managed;

/// <summary>Sockets of the BCL that are bound as <see cref="SocketDescriptors"/> binds its descriptors.</summary>
internal static class ManagedSockets
{
    /// <summary>Makes a socket for an address and binds it.</summary>
    /// <param name="address">The address that the caller asked for.</param>
    /// <param name="type">Stream or datagram.</param>
    /// <param name="endPoint">The end point to bind to.</param>
    /// <exception cref="SocketException">The address is in use, or cannot be bound for another reason.</exception>
    /// <exception cref="PlatformNotSupportedException">The port is to be shared, and the system cannot do that.</exception>
    internal static Socket Bind(EvioAddress address, SocketType type, EndPoint endPoint)
    {
        var protocol = endPoint.AddressFamily == AddressFamily.Unix ? ProtocolType.Unspecified
            : type == SocketType.Stream ? ProtocolType.Tcp
            : ProtocolType.Udp;
        var socket = new Socket(endPoint.AddressFamily, type, protocol);
        try
        {
            if (endPoint is IPEndPoint { AddressFamily: AddressFamily.InterNetworkV6 } ip)
            {
                socket.DualMode = address.DualMode && ip.Address.Equals(IPAddress.IPv6Any);
            }

            if (address.ReusePort)
            {
                SharePort(socket);
            }

            // Not SocketOptionName.ReuseAddress: on Unix it sets SO_REUSEPORT as well, which would let a second server bind in silence. Its
            // usual purpose is to bind the port of a server that has just ended. bind(2) as the BCL calls it permits that by itself.
            socket.Bind(endPoint);
            return socket;
        }
        catch (SocketException exception)
        {
            socket.Dispose();
            throw exception.SocketErrorCode == SocketError.SocketError && address.EndPoint is UnixDomainSocketEndPoint unix
                && SocketFiles.PathOf(unix) is { } file && SocketFiles.IsOnReadOnlyFileSystem(file)
                ? SocketDescriptors.ReadOnlyException(endPoint)
                : SocketDescriptors.BindException(exception.SocketErrorCode, endPoint);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Sets <c>SO_REUSEPORT</c>. The BCL's <see cref="SocketOptionName.ReuseAddress"/> sets more than that, and means something else on
    /// Windows.
    /// </summary>
    private static void SharePort(Socket socket)
    {
        if (!Platform.HasSharedPorts)
        {
            throw new PlatformNotSupportedException("reuseport=true cannot be had: this system has no SO_REUSEPORT.");
        }

        socket.SetRawSocketOption(Platform.SOL_SOCKET, Platform.SO_REUSEPORT, [1, 0, 0, 0]);
    }
}
