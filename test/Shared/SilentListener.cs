using System.Net;
using System.Net.Sockets;

namespace Evio.Transport.Testing;

/// <summary>A TCP address that answers no further SYN: its backlog is full and nobody accepts (listen(2)).</summary>
internal sealed class SilentListener : IDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<Socket> _waiting = [];

    public SilentListener()
    {
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(0);
        for (var full = false; !full;)
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
            _waiting.Add(socket);
            try
            {
                socket.Connect(EndPoint);
            }
            catch (SocketException exception) when (exception.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
            {
                // Over loopback an answer comes at once, or never.
                full = !socket.Poll(TimeSpan.FromMilliseconds(100), SelectMode.SelectWrite);
            }
        }
    }

    public EndPoint EndPoint => _listener.LocalEndPoint!;

    public void Dispose()
    {
        _waiting.ForEach(static socket => socket.Dispose());
        _listener.Dispose();
    }
}
