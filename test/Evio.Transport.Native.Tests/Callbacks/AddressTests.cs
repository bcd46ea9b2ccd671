using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>What can be written after a scheme. What is refused is in <see cref="EvioTests"/>.</summary>
public sealed class AddressTests
{
    [Theory]
    [InlineData("tcp://localhost:0", AddressFamily.InterNetwork)]
    [InlineData("tcp-net://localhost:0", AddressFamily.InterNetwork)]
    [InlineData("tcp4://:0", AddressFamily.InterNetwork)]
    [InlineData("tcp4-net://:0", AddressFamily.InterNetwork)]
    [InlineData("tcp6://:0", AddressFamily.InterNetworkV6)]
    [InlineData("tcp6-net://:0", AddressFamily.InterNetworkV6)]
    [InlineData("tcp://[::1]:0", AddressFamily.InterNetworkV6)]
    [InlineData("tcp-net://[::1]:0", AddressFamily.InterNetworkV6)]
    [InlineData("tcp6://[::1]:0?reuseport=false", AddressFamily.InterNetworkV6)]
    [InlineData("tcp6-net://[::1]:0?reuseport=0", AddressFamily.InterNetworkV6)]
    public async Task HostsAndFamilies_AreServed(string address, AddressFamily family)
    {
        await using var server = await TestScheduling.StartAsync(EvioTests.EchoEvents(), address);
        var bound = Assert.IsType<IPEndPoint>(server.Addresses[0]);

        using var client = await Client.ConnectAsync(
            new IPEndPoint(family == AddressFamily.InterNetwork ? IPAddress.Loopback : IPAddress.IPv6Loopback, bound.Port));

        await client.ExpectEchoAsync("x");
        Assert.Equal(family, bound.AddressFamily);
    }

    [Fact]
    public async Task SeveralAddresses_AreToldApart()
    {
        using var directory = new Support.TemporaryDirectory();
        await using var server = await TestScheduling.StartAsync(
            new Events
            {
                NumLoops = 2,
                Opened = static (connection, ref _) =>
                {
                    connection.Write([(byte)('0' + connection.AddressIndex)]);
                    return EvioAction.Close;
                },
            },
            "tcp://127.0.0.1:0",
            "tcp-net://127.0.0.1:0",
            $"unix://{directory.File("poller")}",
            $"unix-net://{directory.File("fallback")}");

        for (var i = 0; i < 4; i++)
        {
            using var client = await Client.ConnectAsync(server.Addresses[i]);
            await client.ExpectToEndAsync($"{i}");
        }
    }

    [Theory]
    [InlineData("tcp6")]
    [InlineData("udp-net")]
    public void ZoneOfALinkLocalAddress_IsKept(string scheme)
    {
        var address = Assert.IsType<IPEndPoint>(EvioAddress.Parse($"{scheme}://[fe80::1%7]:80").EndPoint);
        Assert.Equal((7L, 80), (address.Address.ScopeId, address.Port));

        var loopback = NetworkInterface.GetAllNetworkInterfaces().First(static candidate => candidate.NetworkInterfaceType == NetworkInterfaceType.Loopback);
        var named = Assert.IsType<IPEndPoint>(EvioAddress.Parse($"{scheme}://[fe80::1%{loopback.Name}]:80").EndPoint);
        Assert.Equal(loopback.GetIPProperties().GetIPv6Properties().Index, named.Address.ScopeId);
    }

    [Theory]
    [InlineData("unix")]
    [InlineData("unix-net")]
    public async Task AtSign_MakesAnAbstractAddress(string scheme)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only Linux has abstract addresses.");
        var name = $"{Guid.NewGuid():N}";
        await using var server = await TestScheduling.StartAsync(EvioTests.EchoEvents(), $"{scheme}://@{name}");

        using var client = await Client.ConnectAsync(new UnixDomainSocketEndPoint($"\0{name}"));

        await client.ExpectEchoAsync("x");
        Assert.False(File.Exists($"@{name}"));
    }

    /// <summary>No name ends so (RFC 6761); without a resolver it cannot be found out either.</summary>
    [Fact]
    public async Task UnknownHost_IsRefusedByName()
    {
        const string Address = "tcp://no-such-host.invalid:5000";
        await using var server = await TestScheduling.StartAsync(new Events());

        var exception = await Assert.ThrowsAsync<SocketException>(() => TestScheduling.StartAsync(new Events(), Address));
        Assert.Contains(Address, exception.Message, StringComparison.Ordinal);

        exception = await Assert.ThrowsAsync<SocketException>(() => server.DialAsync(Address));
        Assert.Contains("no-such-host.invalid:5000", exception.Message, StringComparison.Ordinal);
    }
}
