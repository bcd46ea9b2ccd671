using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Managed;

/// <summary>Connects with the BCL's <see cref="Socket"/>.</summary>
internal static class ManagedConnector
{
    /// <param name="group">The loops.</param>
    /// <param name="loop">The future owner; <see langword="null"/> lets the group choose.</param>
    /// <param name="endPoint">An IP, Unix-domain or DNS end point; the addresses of a name are tried in turn.</param>
    /// <param name="onConnected">Called on the loop, before the task completes.</param>
    /// <param name="cancellationToken">Ends the attempt.</param>
    internal static Task ConnectAsync(
        EventLoopGroup group, EventLoop? loop, EndPoint endPoint, Action<ManagedStreamSocket> onConnected, CancellationToken cancellationToken) =>
        endPoint is DnsEndPoint name
            ? NameResolution.ConnectAsync(
                name, group.Resolve, address => ConnectAsync(group, loop, address, onConnected, cancellationToken), cancellationToken)
            : ConnectAsync(group.AssignOutbound(loop), endPoint, onConnected, cancellationToken);

    private static async Task ConnectAsync(
        EventLoop loop, EndPoint endPoint, Action<ManagedStreamSocket> onConnected, CancellationToken cancellationToken)
    {
        ManagedStreamSocket channel;
        try
        {
            channel = new ManagedStreamSocket(loop, await ConnectAsync(endPoint, cancellationToken).ConfigureAwait(false));
        }
        catch
        {
            loop.ConnectionRemoved();
            throw;
        }

        var completion = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var posted = loop.TryPostWhileEnding(
            _ =>
            {
                try
                {
                    onConnected(channel);
                    completion.SetResult();
                }
                catch (Exception exception)
                {
                    channel.Close();
                    completion.SetException(exception);
                }
            },
            null);
        if (!posted)
        {
            channel.Close();
            throw new ObjectDisposedException(nameof(EventLoopGroup));
        }

        await completion.Task.ConfigureAwait(false);
    }

    private static async Task<Socket> ConnectAsync(EndPoint endPoint, CancellationToken cancellationToken)
    {
        var isUnix = endPoint is UnixDomainSocketEndPoint;
        var socket = new Socket(endPoint.AddressFamily, SocketType.Stream, isUnix ? ProtocolType.Unspecified : ProtocolType.Tcp);
        try
        {
            await socket.ConnectAsync(endPoint, cancellationToken).ConfigureAwait(false);
            if (!isUnix)
            {
                socket.NoDelay = true;
                if (endPoint.Equals(socket.LocalEndPoint))
                {
                    // As in StreamConnector: no server listens there, and the socket is connected to itself.
                    throw new SocketException((int)SocketError.ConnectionRefused);
                }
            }

            return socket;
        }
        catch (SocketException exception)
        {
            socket.Dispose();
            throw new SocketException((int)exception.SocketErrorCode, $"No connection to {endPoint} could be made: {exception.Message}");
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
