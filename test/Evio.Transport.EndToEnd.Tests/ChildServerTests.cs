using System.Text;
using Evio.Transport.Testing;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class ChildServerTests
{
    [Theory, AllTransports]
    public async Task An_abort_sends_FIN_where_the_switch_FinOnError_asks_for_it(TransportKind kind)
    {
        await using var server = await ChildServer.StartAsync(kind, ChildServer.Mode.FinOnError);
        using var client = await server.ConnectAsync();

        await client.SendAllAsync("GET /abort HTTP/1.1\r\nHost: a\r\n\r\n").OrTimeout();

        Assert.Empty(await client.ReceiveToEndAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_socket_that_systemd_passes_on_is_served(TransportKind kind)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Socket activation is systemd's.");
        await using var server = await ChildServer.StartAsync(kind, ChildServer.Mode.Activating);
        for (var i = 0; i < 3; i++)
        {
            using var client = await server.ConnectAsync();
            await client.SendAllAsync("GET / HTTP/1.0\r\n\r\n").OrTimeout();
            Assert.EndsWith("served", Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout()), StringComparison.Ordinal);
        }
    }

    [Theory, AllTransports("any", "localhost")]
    public async Task Without_IPv6_Kestrel_falls_back_to_IPv4(TransportKind kind, string address)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "seccomp(2) is Linux's.");
        await using var server = await ChildServer.StartAsync(
            kind, address == "any" ? ChildServer.Mode.AnyIPWithoutIPv6 : ChildServer.Mode.LocalhostWithoutIPv6);
        using var client = await server.ConnectAsync();

        await client.SendAllAsync("GET / HTTP/1.0\r\n\r\n").OrTimeout();

        Assert.EndsWith("served", Encoding.ASCII.GetString(await client.ReceiveToEndAsync().OrTimeout()), StringComparison.Ordinal);
    }
}
