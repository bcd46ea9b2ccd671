using System.Net;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// A UDP address of a server, with a socket on each loop. The kernel chooses the socket by the sender, so that the datagrams of one sender
/// stay on one loop.
/// </summary>
internal sealed class DatagramServer : IServerListener
{
    private readonly EvioServer _server;
    private readonly DatagramSocket[] _sockets;
    private readonly int _index;

    private DatagramServer(EvioServer server, DatagramSocket[] sockets, EndPoint localEndPoint, int index)
    {
        _server = server;
        _sockets = sockets;
        _index = index;
        LocalEndPoint = localEndPoint;
    }

    public EndPoint LocalEndPoint { get; }

    internal static Task<IServerListener> BindAsync(EvioServer server, EvioAddress address, int index)
    {
        var descriptors = SocketDescriptors.BindPerLoop(
            (IPEndPoint)address.EndPoint, Platform.SOCK_DGRAM, server.NumLoops, address.DualMode, address.ReusePort, onBound: null, out var bound);
        var sockets = descriptors.Select((descriptor, i) => new DatagramSocket(server.Loops[i], descriptor, bound));
        return Task.FromResult<IServerListener>(new DatagramServer(server, [.. sockets], bound, index));
    }

    public void Resume()
    {
        foreach (var socket in _sockets)
        {
            // An exception of Start stops the server. A loop that has ended receives nothing.
            _ = socket.Loop.TryPostInternal(_ => socket.Start(new DatagramConnection(_server, socket, _index)), null);
        }
    }

    public Task CloseAsync() => Task.WhenAll(_sockets.Select(static socket => socket.CloseAsync()));
}
