using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>A <see cref="ConnectionHandler"/> in Kestrel, beneath HTTP.</summary>
public sealed class RawConnectionTests
{
    private static readonly HostSettings Echo = new() { Listen = static listen => listen.UseConnectionHandler<Applications.RawEcho>() };

    [Theory, AllTransports]
    public async Task Every_byte_comes_back_over_TCP(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static _ => { }, Echo);
        using var client = await host.ConnectAsync();

        await AssertEchoesToTheEndAsync(client, TestData.Bytes(5_000_000));
    }

    [Theory, AllTransports]
    public async Task Every_byte_comes_back_over_a_unix_socket(TransportKind kind)
    {
        using var path = new UnixSocketPath();
        await using var host = await TransportHost.StartAsync(kind, static _ => { }, Echo with { EndPoint = path.EndPoint });
        using var client = await host.ConnectAsync();

        await AssertEchoesToTheEndAsync(client, TestData.Bytes(5_000_000));
    }

    [Theory, AllTransports]
    public async Task Many_connections_do_not_mix_their_bytes(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static _ => { }, Echo);

        await Task.WhenAll(Enumerable.Range(0, 50).Select(async i =>
        {
            using var client = await host.ConnectAsync();
            await AssertEchoesToTheEndAsync(client, TestData.Bytes(200_000 + i, seed: i));
        }));
    }

    [Theory, AllTransports]
    public async Task A_handler_that_returns_ends_the_connection_with_a_FIN(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static _ => { }, new HostSettings
        {
            Listen = static listen => listen.Run(
                static async connection => await connection.Transport.Output.WriteAsync("bye"u8.ToArray())),
        });
        using var client = await host.ConnectAsync();

        Assert.Equal("bye"u8.ToArray(), await client.ReceiveToEndAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_handler_that_throws_ends_its_connection_alone(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static _ => { }, new HostSettings
        {
            Listen = static listen => listen.Run(static async connection =>
            {
                var result = await connection.Transport.Input.ReadAsync();
                if (result.Buffer.FirstSpan[0] == '!')
                {
                    throw new InvalidTimeZoneException();
                }

                await connection.Transport.Output.WriteAsync("fine"u8.ToArray());
            }),
        });
        using var bad = await host.ConnectAsync();
        using var good = await host.ConnectAsync();

        await bad.SendAllAsync("!").OrTimeout();
        Assert.Empty(await bad.ReceiveToEndAsync().OrTimeout());

        await good.SendAllAsync("?").OrTimeout();
        Assert.Equal("fine"u8.ToArray(), await good.ReceiveToEndAsync().OrTimeout());
    }

    private static async Task AssertEchoesToTheEndAsync(Socket client, byte[] sent)
    {
        var receive = client.ReceiveToEndAsync();
        await client.SendAllAsync(sent).OrTimeout();
        client.Shutdown(SocketShutdown.Send);
        TestData.AssertSame(sent, await receive.OrTimeout());
    }
}
