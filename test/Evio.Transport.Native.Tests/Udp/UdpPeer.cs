using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Evio.Transport.Native.Tests.Udp;

/// <summary>A client with a socket, and hence an address, of its own.</summary>
internal sealed class UdpPeer : IDisposable
{
    /// <summary>How long a test waits for what must happen. Far longer than it ever takes: only a hang or a loss runs into it.</summary>
    internal static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    private readonly Socket _socket;
    private readonly byte[] _buffer = new byte[64 * 1024];

    /// <param name="server">A bound address of the server; one that stands for all addresses is reached over loopback.</param>
    /// <param name="family">The family to reach it with, if not the address's own.</param>
    internal UdpPeer(EndPoint server, AddressFamily? family = null)
    {
        var bound = (IPEndPoint)server;
        var loopback = (family ?? bound.AddressFamily) == AddressFamily.InterNetwork ? IPAddress.Loopback : IPAddress.IPv6Loopback;
        _socket = new Socket(loopback.AddressFamily, SocketType.Dgram, ProtocolType.Udp) { ReceiveBufferSize = 4 * 1024 * 1024 };
        _socket.Bind(new IPEndPoint(loopback, 0));
        _socket.Connect(loopback, bound.Port);
    }

    /// <param name="asked">The address of this machine that it connects to; it takes datagrams from no other.</param>
    /// <param name="port">The server's port.</param>
    internal UdpPeer(IPAddress asked, int port)
    {
        _socket = new Socket(asked.AddressFamily, SocketType.Dgram, ProtocolType.Udp) { ReceiveBufferSize = 4 * 1024 * 1024 };
        _socket.Connect(asked, port);
    }

    internal IPEndPoint EndPoint => (IPEndPoint)_socket.LocalEndPoint!;

    /// <summary>Sends a datagram, which over loopback is in the server's socket when this returns.</summary>
    internal void Send(ReadOnlySpan<byte> datagram) => Assert.Equal(datagram.Length, _socket.Send(datagram));

    internal void Send(string text) => Send(Encoding.UTF8.GetBytes(text));

    internal async Task<byte[]> ReceiveAsync()
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        limit.CancelAfter(Limit);
        var length = await _socket.ReceiveAsync(_buffer, limit.Token);
        return _buffer[..length];
    }

    internal async Task<string> ReceiveTextAsync() => Encoding.UTF8.GetString(await ReceiveAsync());

    internal Task<byte[]> AskAsync(ReadOnlySpan<byte> datagram)
    {
        Send(datagram);
        return ReceiveAsync();
    }

    internal Task<string> AskAsync(string text)
    {
        Send(text);
        return ReceiveTextAsync();
    }

    public void Dispose() => _socket.Dispose();
}
