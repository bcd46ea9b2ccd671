using System.Net;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Outbound connections of a server, which have the same callbacks as those that it accepts.</summary>
public sealed class DialTests
{
    public static TheoryData<string> Schemes => Site.Schemes;

    public static TheoryData<string> TcpSchemes => Site.TcpSchemes;

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Dialled_TalksToAnAcceptedOneOfTheSameServer(string scheme)
    {
        await using var site = new Site(scheme);
        var answered = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
        var closed = new Counter();
        var dialledContext = new object();
        var server = await site.StartAsync(new Events
        {
            NumLoops = 2,
            LoadBalance = LoadBalance.RoundRobin,
            Opened = (connection, ref _) =>
            {
                Assert.True(connection.Loop.IsCurrent);
                Assert.Equal(connection.AddressIndex == -1 ? dialledContext : null, connection.Context);
                if (connection.AddressIndex == -1)
                {
                    connection.Write("ping"u8);
                }

                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                if (connection.AddressIndex == 0)
                {
                    Assert.Equal("ping"u8, input);
                    connection.Write("pong"u8);
                    return EvioAction.None;
                }

                answered.SetResult(Encoding.ASCII.GetString(input));
                return EvioAction.Close;
            },
            Closed = (_, error) =>
            {
                Assert.Null(error);
                closed.Add();
                return EvioAction.None;
            },
        });

        var connection = await server.DialAsync(AddressOf(scheme, server), dialledContext).Within();

        Assert.Equal(-1, connection.AddressIndex);
        Assert.Equal(server.Addresses[0].ToString(), connection.RemoteEndPoint!.ToString());
        Assert.NotNull(connection.LocalEndPoint);
        Assert.Equal("pong", await answered.Task.Within());
        await closed.ReachesAsync(2);
        Assert.Equal(4, connection.BytesSent);
        Assert.Equal(4, connection.BytesReceived);
        Assert.All(server.Loops, static loop => Assert.Equal(0, loop.ConnectionCount));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Dialled_SendsWakesAndClosesLikeAnyOther(string scheme)
    {
        await using var peer = new Site(scheme);
        await peer.StartAsync(Echo());
        var received = new Counter();
        var woken = new Counter();
        var closed = new Counter();
        await using var server = await TestScheduling.StartAsync(new Events
        {
            Data = (_, input) =>
            {
                (input.IsEmpty ? woken : received).Add(Math.Max(input.Length, 1));
                return EvioAction.None;
            },
            Closed = (_, error) =>
            {
                Assert.Null(error);
                closed.Add();
                return EvioAction.None;
            },
        }).Within();
        var connection = await server.DialAsync(AddressOf(scheme, peer.Server!)).Within();

        await connection.SendAsync(new byte[1000]).Within();
        await received.ReachesAsync(1000);
        Assert.True(connection.Wake());
        await woken.ReachesAsync(1);
        connection.Close();
        await closed.ReachesAsync(1);

        Assert.False(connection.Wake());
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Loop_CanBeChosen(string scheme)
    {
        await using var peer = new Site(scheme);
        await peer.StartAsync(Echo());
        await using var server = await TestScheduling.StartAsync(new Events { NumLoops = 3 }).Within();

        foreach (var loop in server.Loops)
        {
            var connection = await server.DialAsync(AddressOf(scheme, peer.Server!), loop: loop).Within();
            Assert.Same(loop, connection.Loop);
        }

        await Assert.ThrowsAsync<ArgumentException>(() => server.DialAsync(AddressOf(scheme, peer.Server!), loop: peer.Server!.Loops[0]));
    }

    [Theory]
    [MemberData(nameof(TcpSchemes))]
    public async Task AddressWhereNobodyListens_IsRefusedByName(string scheme)
    {
        using var bound = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        bound.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        await using var server = await TestScheduling.StartAsync(new Events
        {
            Opened = static (_, ref _) => throw new InvalidOperationException("Nothing was connected."),
        }).Within();

        var exception = await Assert.ThrowsAsync<SocketException>(() => server.DialAsync($"{scheme}://{bound.LocalEndPoint}")).Within();

        Assert.Equal(SocketError.ConnectionRefused, exception.SocketErrorCode);
        Assert.Contains(bound.LocalEndPoint!.ToString()!, exception.Message, StringComparison.Ordinal);
        Assert.Equal(0, server.Loops[0].ConnectionCount);
    }

    [Theory]
    [InlineData("udp://127.0.0.1:9", "cannot be dialled")]
    [InlineData("tcp://127.0.0.1:9?reuseport=true", "cannot be dialled")]
    [InlineData("tulip://howdy", "tulip")]
    [InlineData("howdy", "no scheme")]
    public async Task BadAddress_IsRefusedWithTheReason(string address, string reason)
    {
        await using var server = await TestScheduling.StartAsync(new Events()).Within();

        var exception = await Assert.ThrowsAsync<ArgumentException>(() => server.DialAsync(address)).Within();

        Assert.Contains(reason, exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(TcpSchemes))]
    public async Task EmptyHost_IsThisMachine(string scheme)
    {
        await using var peer = new Site(scheme);
        await peer.StartAsync(Echo());
        await using var server = await TestScheduling.StartAsync(new Events()).Within();

        var connection = await server.DialAsync($"{scheme}://:{((IPEndPoint)peer.Server!.Addresses[0]).Port}").Within();

        Assert.Equal(peer.Server.Addresses[0], connection.RemoteEndPoint);
    }

    [Theory]
    [InlineData("tcp", AddressFamily.Unspecified)]
    [InlineData("tcp4", AddressFamily.InterNetwork)]
    [InlineData("tcp6", AddressFamily.InterNetworkV6)]
    [InlineData("tcp-net", AddressFamily.Unspecified)]
    [InlineData("tcp4-net", AddressFamily.InterNetwork)]
    [InlineData("tcp6-net", AddressFamily.InterNetworkV6)]
    public async Task AddressesOfAName_AreTriedInTheResolversOrder(string scheme, AddressFamily family)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6 || family != AddressFamily.InterNetworkV6, "There is no IPv6.");
        await using var peer = new Site("tcp");
        await peer.StartAsync(Echo());
        await using var six = Socket.OSSupportsIPv6 ? await EvioServer.StartAsync(Echo(), "tcp6://[::1]:0").Within() : null;
        var target = (IPEndPoint)(family == AddressFamily.InterNetworkV6 ? six! : peer.Server!).Addresses[0];
        var asked = new List<(string, AddressFamily)>();
        await using var server = await EvioServer.StartAsync(new Events()).Within();

        // Where nobody listens, and where the family is another one than the answer's first.
        IPAddress[] answer = family == AddressFamily.InterNetworkV6
            ? [IPAddress.Parse("::ffff:127.0.0.9"), IPAddress.IPv6Loopback]
            : [IPAddress.Parse("127.0.0.9"), IPAddress.Parse("127.0.0.8"), IPAddress.Loopback];
        server.Group.Resolve = (host, family, _) =>
        {
            asked.Add((host, family));
            return Task.FromResult(answer);
        };

        var connection = await server.DialAsync($"{scheme}://many.test:{target.Port}").Within();

        Assert.Equal(target, connection.RemoteEndPoint);
        Assert.Equal([("many.test", family)], asked);
    }

    [Theory]
    [MemberData(nameof(TcpSchemes))]
    public async Task FirstAddressOfAName_IsNotAlwaysTheIPv4One(string scheme)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "There is no IPv6.");
        await using var peer = await EvioServer.StartAsync(Echo(), "tcp6://[::1]:0").Within();
        await using var server = await EvioServer.StartAsync(new Events()).Within();
        server.Group.Resolve = static (_, _, _) => Task.FromResult<IPAddress[]>([IPAddress.IPv6Loopback, IPAddress.Loopback]);

        var connection = await server.DialAsync($"{scheme}://both.test:{((IPEndPoint)peer.Addresses[0]).Port}").Within();

        Assert.Equal(peer.Addresses[0], connection.RemoteEndPoint);
    }

    [Theory]
    [MemberData(nameof(TcpSchemes))]
    public async Task NameWithoutAnAddressThatAnswers_FailsWithTheLastReason(string scheme)
    {
        using var bound = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        bound.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        await using var server = await EvioServer.StartAsync(new Events()).Within();
        server.Group.Resolve = static (host, _, _) => host == "some.test"
            ? Task.FromResult<IPAddress[]>([IPAddress.Parse("127.0.0.9"), IPAddress.Loopback])
            : Task.FromException<IPAddress[]>(new SocketException((int)SocketError.HostNotFound));

        var refused = await Assert.ThrowsAsync<SocketException>(
            () => server.DialAsync($"{scheme}://some.test:{((IPEndPoint)bound.LocalEndPoint!).Port}")).Within();
        Assert.Equal(SocketError.ConnectionRefused, refused.SocketErrorCode);
        Assert.Contains(bound.LocalEndPoint!.ToString()!, refused.Message, StringComparison.Ordinal);

        var unknown = await Assert.ThrowsAsync<SocketException>(() => server.DialAsync($"{scheme}://no.test:80")).Within();
        Assert.Equal(SocketError.HostNotFound, unknown.SocketErrorCode);
        Assert.Contains("no.test", unknown.Message, StringComparison.Ordinal);
        Assert.Equal(0, server.Loops.Sum(static loop => loop.ConnectionCount));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ExceptionOfOpened_ClosesTheConnection(string scheme)
    {
        await using var peer = new Site(scheme);
        await peer.StartAsync(Echo());
        var closed = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var server = await TestScheduling.StartAsync(new Events
        {
            Opened = static (_, ref _) => throw new InvalidOperationException("no"),
            Closed = (_, error) =>
            {
                closed.SetResult(error);
                return EvioAction.None;
            },
        }).Within();

        var connection = await server.DialAsync(AddressOf(scheme, peer.Server!)).Within();

        Assert.Equal("no", (await closed.Task.Within())!.Message);
        Assert.False(connection.Wake());
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Cancelled_IsRefused(string scheme)
    {
        await using var peer = new Site(scheme);
        await peer.StartAsync(Echo());
        await using var server = await TestScheduling.StartAsync(new Events()).Within();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => server.DialAsync(AddressOf(scheme, peer.Server!), cancellationToken: new CancellationToken(canceled: true))).Within();
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task StoppedServer_DialsNoMore(string scheme)
    {
        await using var peer = new Site(scheme);
        await peer.StartAsync(Echo());
        var server = await TestScheduling.StartAsync(new Events()).Within();
        var connection = await server.DialAsync(AddressOf(scheme, peer.Server!)).Within();

        await server.StopAsync().Within();

        Assert.False(connection.Wake());
        await Assert.ThrowsAsync<ObjectDisposedException>(() => server.DialAsync(AddressOf(scheme, peer.Server!))).Within();
    }

    private static Events Echo() => new()
    {
        Data = static (connection, input) =>
        {
            connection.Write(input);
            return EvioAction.None;
        },
    };

    private static string AddressOf(string scheme, EvioServer server) => $"{scheme}://{server.Addresses[0]}";
}
