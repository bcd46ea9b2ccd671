using System.Collections.Concurrent;
using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;
using static Evio.Transport.Native.Tests.Udp.UdpServers;

namespace Evio.Transport.Native.Tests.Udp;

/// <summary>What UDP addresses bind, and who may bind them too.</summary>
public class DatagramAddressTests
{
    public static TheoryData<string> Schemes => UdpServers.Schemes;

    [Theory]
    [InlineData("udp://127.0.0.1:0", AddressFamily.InterNetwork)]
    [InlineData("udp-net://127.0.0.1:0", AddressFamily.InterNetwork)]
    [InlineData("udp://[::1]:0", AddressFamily.InterNetworkV6)]
    [InlineData("udp-net://[::1]:0", AddressFamily.InterNetworkV6)]
    [InlineData("udp4://:0", AddressFamily.InterNetwork)]
    [InlineData("udp4-net://:0", AddressFamily.InterNetwork)]
    [InlineData("udp4://localhost:0", AddressFamily.InterNetwork)]
    [InlineData("udp4-net://localhost:0", AddressFamily.InterNetwork)]
    [InlineData("udp6://:0", AddressFamily.InterNetworkV6)]
    [InlineData("udp6-net://:0", AddressFamily.InterNetworkV6)]
    public async Task FamiliesAreServed(string address, AddressFamily family)
    {
        await using var server = await TestScheduling.StartAsync(new Events { Data = AnswerSender }, address);
        using var peer = new UdpPeer(server.Addresses[0]);

        Assert.Equal(family, server.Addresses[0].AddressFamily);
        Assert.NotEqual(0, server.Port());
        Assert.Equal(peer.EndPoint.ToString(), await peer.AskAsync("?"));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task AllAddressesAreThoseOfBothFamilies(string scheme)
    {
        await using var server = await TestScheduling.StartAsync(new Events { Data = AnswerSender }, $"{scheme}://:0");
        using var peer4 = new UdpPeer(server.Addresses[0], AddressFamily.InterNetwork);
        using var peer6 = new UdpPeer(server.Addresses[0], AddressFamily.InterNetworkV6);

        // As the kernel gives it: an IPv4 address mapped into IPv6.
        Assert.Equal($"[::ffff:127.0.0.1]:{peer4.EndPoint.Port}", await peer4.AskAsync("?"));
        Assert.Equal($"[::1]:{peer6.EndPoint.Port}", await peer6.AskAsync("?"));
    }

    [Theory]
    [InlineData("udp6", "udp4")]
    [InlineData("udp6-net", "udp4-net")]
    [InlineData("udp6", "udp4-net")]
    public async Task OneFamilyLeavesThePortOfTheOtherFree(string scheme6, string scheme4)
    {
        EvioServer? server4 = null;
        for (var attempt = 1; server4 is null; attempt++)
        {
            await using var server6 = await TestScheduling.StartAsync(new Events { Data = AnswerSender }, $"{scheme6}://:0");
            try
            {
                server4 = await TestScheduling.StartAsync(new Events { Data = AnswerSender }, $"{scheme4}://:{server6.Port()}");
            }
            catch (SocketException) when (attempt < 5)
            {
                // Somebody else happens to have the IPv4 port.
                continue;
            }

            using var peer4 = new UdpPeer(server4.Addresses[0]);
            using var peer6 = new UdpPeer(server6.Addresses[0]);
            Assert.Equal(peer4.EndPoint.ToString(), await peer4.AskAsync("?"));
            Assert.Equal(peer6.EndPoint.ToString(), await peer6.AskAsync("?"));
        }

        await server4.DisposeAsync();
    }

    [Fact]
    public async Task SeveralAddressesOfBothKindsAreToldApart()
    {
        await using var server = await TestScheduling.StartAsync(
            new Events
            {
                NumLoops = 2,
                Data = static (connection, _) =>
                {
                    connection.Write($"{connection.AddressIndex} on {connection.LocalEndPoint}");
                    return EvioAction.None;
                },
            },
            "udp://127.0.0.1:0",
            "udp-net://127.0.0.1:0",
            "udp6://[::1]:0",
            "udp6-net://[::1]:0");

        for (var i = 0; i < 4; i++)
        {
            using var peer = new UdpPeer(server.Addresses[i]);
            Assert.Equal($"{i} on {server.Addresses[i]}", await peer.AskAsync("?"));
        }
    }

    [Theory]
    [InlineData("udp", 1)]
    [InlineData("udp", 4)]
    [InlineData("udp-net", 1)]
    [InlineData("udp-net", 4)]
    public async Task SendersStayOnTheirLoop(string scheme, int loops)
    {
        const int Senders = 64;
        var loopsUsed = new ConcurrentDictionary<string, bool>();
        await using var server = await StartAsync(scheme, new Events
        {
            NumLoops = loops,
            Data = static (connection, _) =>
            {
                Assert.True(connection.Loop.IsCurrent);
                connection.Write($"{connection.Loop.Index}");
                return EvioAction.None;
            },
        });

        for (var i = 0; i < Senders; i++)
        {
            using var peer = new UdpPeer(server.Addresses[0]);
            var loop = await peer.AskAsync("?");
            Assert.Equal(loop, await peer.AskAsync("?"));
            loopsUsed.TryAdd(loop, true);
        }

        // The kernel's hash does not put 64 senders on one socket of four. The fallback has one socket, and with it one loop.
        Assert.Equal(scheme == "udp" && loops > 1, loopsUsed.Count > 1);
    }

    [Theory]
    [InlineData("udp", "udp", 1, false)]
    [InlineData("udp", "udp", 3, false)]
    [InlineData("udp", "udp", 3, true)]
    [InlineData("udp", "udp-net", 1, false)]
    [InlineData("udp", "udp-net", 3, true)]
    [InlineData("udp-net", "udp", 1, false)]
    [InlineData("udp-net", "udp", 3, true)]
    [InlineData("udp-net", "udp-net", 1, true)]
    public async Task ABusyPortIsRefused(string holder, string scheme, int loops, bool holderShares)
    {
        var query = holderShares ? "?reuseport=true" : "";
        await using var server = await TestScheduling.StartAsync(new Events { NumLoops = loops, Data = Echo }, $"{holder}://127.0.0.1:0{query}");

        var refusal = await Assert.ThrowsAsync<SocketException>(
            () => TestScheduling.StartAsync(new Events { NumLoops = loops }, $"{scheme}://{server.Addresses[0]}"));

        Assert.Equal(SocketError.AddressAlreadyInUse, refusal.SocketErrorCode);
        Assert.Contains(server.Addresses[0].ToString()!, refusal.Message, StringComparison.Ordinal);
        using var peer = new UdpPeer(server.Addresses[0]);
        Assert.Equal("still there", await peer.AskAsync("still there"));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task AnAddressOfAnotherMachineIsRefused(string scheme)
    {
        // TEST-NET-1 (RFC 5737): nobody's.
        var refusal = await Assert.ThrowsAsync<SocketException>(() => TestScheduling.StartAsync(new Events(), $"{scheme}://192.0.2.1:0"));

        Assert.Equal(SocketError.AddressNotAvailable, refusal.SocketErrorCode);
        Assert.Contains("192.0.2.1:0", refusal.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("udp", 1)]
    [InlineData("udp", 2)]
    [InlineData("udp-net", 1)]
    public async Task SharedPortsAreShared(string scheme, int loops)
    {
        var servers = new List<EvioServer>();
        try
        {
            var address = $"{scheme}://127.0.0.1:0?reuseport=1";
            for (var i = 0; i < 5; i++)
            {
                servers.Add(await TestScheduling.StartAsync(new Events { NumLoops = loops, Data = Echo }, address));
                address = $"{scheme}://{servers[0].Addresses[0]}?reuseport=1";
            }

            for (var i = 0; i < 20; i++)
            {
                using var peer = new UdpPeer(servers[0].Addresses[0]);
                Assert.Equal("shared", await peer.AskAsync("shared"));
            }
        }
        finally
        {
            foreach (var server in servers)
            {
                await server.StopAsync().WaitAsync(UdpPeer.Limit, TestContext.Current.CancellationToken);
            }
        }
    }

    private static EvioAction AnswerSender(Connection connection, ReadOnlySpan<byte> input)
    {
        connection.Write($"{connection.RemoteEndPoint}");
        return EvioAction.None;
    }
}
