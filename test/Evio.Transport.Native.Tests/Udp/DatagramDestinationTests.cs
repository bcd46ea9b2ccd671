using System.Net;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Sockets;
using static Evio.Transport.Native.Tests.Udp.UdpServers;

namespace Evio.Transport.Native.Tests.Udp;

/// <summary>A server on all addresses answers from the one that was asked: a client that has connected its socket takes answers from no other.</summary>
public sealed class DatagramDestinationTests
{
    [Theory]
    [InlineData("udp://:0", "127.0.0.2", "[::ffff:127.0.0.2]")]
    [InlineData("udp://[::]:0", "127.0.0.3", "[::ffff:127.0.0.3]")]
    [InlineData("udp://[::]:0", "::1", "[::1]")]
    [InlineData("udp://0.0.0.0:0", "127.0.0.2", "127.0.0.2")]
    [InlineData("udp4://:0", "127.0.0.2", "127.0.0.2")]
    [InlineData("udp6://:0", "::1", "[::1]")]
    [InlineData("udp-net://:0", "127.0.0.2", "[::ffff:127.0.0.2]")]
    [InlineData("udp-net://[::]:0", "127.0.0.3", "[::ffff:127.0.0.3]")]
    [InlineData("udp-net://[::]:0", "::1", "[::1]")]
    [InlineData("udp-net://0.0.0.0:0", "127.0.0.2", "127.0.0.2")]
    [InlineData("udp4-net://:0", "127.0.0.2", "127.0.0.2")]
    [InlineData("udp6-net://:0", "::1", "[::1]")]
    public async Task TheReplyComesFromTheAddressThatWasAsked(string address, string asked, string seen)
    {
        await using var server = await EvioServer.StartAsync(new Events { NumLoops = 2, Data = AnswerLocalEndPoint }, address);
        using var peer = new UdpPeer(IPAddress.Parse(asked), server.Port());

        for (var i = 0; i < 3; i++)
        {
            Assert.Equal($"{seen}:{server.Port()}", await peer.AskAsync("?"));
        }
    }

    /// <summary>One receive brings datagrams to several addresses, of both families, and one send takes the replies.</summary>
    [Theory]
    [InlineData("udp://:0", true)]
    [InlineData("udp4://:0", false)]
    [InlineData("udp-net://:0", true)]
    [InlineData("udp4-net://:0", false)]
    public async Task RepliesOfOneBatchComeFromTheirAddresses(string address, bool both)
    {
        const int Addresses = 8;
        const int Rounds = 3;
        var peers = new List<(UdpPeer Peer, string Address)>();
        await using var server = await EvioServer.StartAsync(
            new Events
            {
                Serving = server =>
                {
                    for (var i = 1; i <= Addresses; i++)
                    {
                        var asked = both && i % 4 == 0 ? IPAddress.IPv6Loopback : new IPAddress(new byte[] { 127, 0, 0, (byte)i });
                        var local = both && asked.AddressFamily == AddressFamily.InterNetwork ? asked.MapToIPv6() : asked;
                        peers.Add((new UdpPeer(asked, server.Port()), new IPEndPoint(local, server.Port()).ToString()));
                    }

                    for (var i = 0; i < Rounds; i++)
                    {
                        peers.ForEach(static peer => peer.Peer.Send("?"));
                    }

                    return EvioAction.None;
                },
                Data = AnswerLocalEndPoint,
            },
            address);

        foreach (var (peer, local) in peers)
        {
            using (peer)
            {
                for (var i = 0; i < Rounds; i++)
                {
                    Assert.Equal(local, await peer.ReceiveTextAsync());
                }
            }
        }
    }

    /// <summary>A broadcast's address is nobody's, so that it cannot be the source: the system chooses, as it does for an address that has gone meanwhile.</summary>
    [Theory]
    [InlineData("udp://:0")]
    [InlineData("udp4://:0")]
    [InlineData("udp-net://:0")]
    [InlineData("udp4-net://:0")]
    public async Task AReplyThatCannotComeFromTheAddressThatWasAskedComesFromAnother(string address)
    {
        await using var server = await EvioServer.StartAsync(new Events { Data = AnswerLocalEndPoint }, address);
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { EnableBroadcast = true };
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        var buffer = new byte[100];

        for (var i = 0; i < 3; i++)
        {
            socket.SendTo("?"u8, new IPEndPoint(IPAddress.Parse("127.255.255.255"), server.Port()));

            var received = await socket.ReceiveFromAsync(buffer, new IPEndPoint(IPAddress.Any, 0)).WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);
            Assert.Contains("127.255.255.255", Encoding.UTF8.GetString(buffer, 0, received.ReceivedBytes), StringComparison.Ordinal);
            Assert.Equal(new IPEndPoint(IPAddress.Loopback, server.Port()), received.RemoteEndPoint);
        }
    }

    [Theory]
    [InlineData("udp://127.0.0.1:0", false)]
    [InlineData("udp6://[::1]:0", false)]
    [InlineData("udp://0.0.0.0:0", true)]
    [InlineData("udp6://[::]:0", true)]
    [InlineData("udp://[::]:0", true)]
    public void OnlyASocketOfAllAddressesIsTold(string address, bool isTold)
    {
        var parsed = EvioAddress.Parse(address);
        var descriptors = SocketDescriptors.BindPerLoop(
            (IPEndPoint)parsed.EndPoint, Platform.SOCK_DGRAM, 2, parsed.DualMode, sharePort: false, onBound: null, out _);
        try
        {
            var (level, option) = PacketInfoFormat.Current.OptionOf(isIPv6: parsed.EndPoint.AddressFamily == AddressFamily.InterNetworkV6);
            Assert.All(descriptors, descriptor => Assert.Equal(isTold ? 1 : 0, Option(descriptor, level, option)));
        }
        finally
        {
            SocketDescriptors.Close(descriptors);
        }
    }

    [Theory]
    [InlineData("udp://127.0.0.1:0")]
    [InlineData("udp-net://127.0.0.1:0")]
    public async Task OnASocketOfOneAddressThatAddressIsTheLocalOne(string address)
    {
        EndPoint? local = null;
        await using var server = await EvioServer.StartAsync(
            new Events
            {
                Data = (connection, input) =>
                {
                    Assert.Null(((DatagramConnection)connection).Channel.GetDestination());
                    local = connection.LocalEndPoint;
                    return Echo(connection, input);
                },
            },
            address);
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal("?", await peer.AskAsync("?"));
        Assert.Same(server.Addresses[0], local);
    }

    /// <summary>What a datagram came to and came from is known to its callbacks alone.</summary>
    [Theory]
    [InlineData("udp://:0")]
    [InlineData("udp-net://:0")]
    public async Task OutsideOfItsCallbacksADatagramHasNoAddresses(string address)
    {
        Connection? kept = null;
        (EndPoint? Local, EndPoint? Remote) elsewhere = default;
        await using var server = await EvioServer.StartAsync(
            new Events
            {
                Data = (connection, input) =>
                {
                    kept = connection;
                    Assert.Same(connection.LocalEndPoint, connection.LocalEndPoint);
                    Assert.NotNull(connection.RemoteEndPoint);
                    var asked = new Thread(() => elsewhere = (connection.LocalEndPoint, connection.RemoteEndPoint));
                    asked.Start();
                    asked.Join();
                    return Echo(connection, input);
                },
            },
            address);
        using var peer = new UdpPeer(IPAddress.Parse("127.0.0.2"), server.Port());

        Assert.Equal("?", await peer.AskAsync("?"));

        Assert.Equal((server.Addresses[0], null), elsewhere);
        Assert.Equal((server.Addresses[0], null), (kept!.LocalEndPoint, kept.RemoteEndPoint));
    }

    private static EvioAction AnswerLocalEndPoint(Connection connection, ReadOnlySpan<byte> input)
    {
        connection.Write($"{connection.LocalEndPoint}");
        return EvioAction.None;
    }

    private static unsafe int Option(int descriptor, int level, int option)
    {
        int value;
        uint length = sizeof(int);
        Assert.Equal(0, Libc.getsockopt(descriptor, level, option, &value, &length));
        return value;
    }
}
