using System.Net.WebSockets;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class WebSocketTests
{
    [Theory, AllTransports]
    public async Task Text_and_large_binary_messages_come_back(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, EchoWebSockets);
        using var socket = await ConnectAsync(host);

        await AssertEchoesAsync(socket, WebSocketMessageType.Text, Encoding.UTF8.GetBytes("héllo"));
        await AssertEchoesAsync(socket, WebSocketMessageType.Binary, []);
        await AssertEchoesAsync(socket, WebSocketMessageType.Binary, TestData.Bytes(3_000_000));
        await AssertEchoesAsync(socket, WebSocketMessageType.Text, Encoding.UTF8.GetBytes(new string('x', 100_000)));

        await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "done", default).OrTimeout();
        Assert.Equal(WebSocketState.Closed, socket.State);
        Assert.Equal("done", socket.CloseStatusDescription);
    }

    [Theory, AllTransports]
    public async Task A_conversation_of_many_small_messages_stays_in_step(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, EchoWebSockets);
        using var socket = await ConnectAsync(host);
        for (var i = 0; i < 500; i++)
        {
            await AssertEchoesAsync(socket, WebSocketMessageType.Binary, TestData.Bytes(i, seed: i));
        }
    }

    [Theory, AllTransports]
    public async Task Messages_come_back_over_HTTPS(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, EchoWebSockets, HostSettings.Https);
        using var socket = await ConnectAsync(host);

        await AssertEchoesAsync(socket, WebSocketMessageType.Binary, TestData.Bytes(1_000_000));
    }

    [Theory, AllTransports]
    public async Task The_server_notices_a_client_that_vanishes(TransportKind kind)
    {
        var ended = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(kind, application => application.UseWebSockets().Run(async context =>
        {
            using var socket = await context.WebSockets.AcceptWebSocketAsync();
            ended.SetResult(await Record.ExceptionAsync(async () => _ = await socket.ReceiveAsync(new byte[10], default)));
        }));
        using var client = await ConnectAsync(host);

        client.Abort();

        Assert.IsType<WebSocketException>(await ended.Task.OrTimeout());
    }

    private static void EchoWebSockets(WebApplication application) => application.UseWebSockets().Run(static async context =>
    {
        using var socket = await context.WebSockets.AcceptWebSocketAsync();
        var buffer = new byte[16 * 1024];
        while (true)
        {
            var result = await socket.ReceiveAsync(buffer.AsMemory(), context.RequestAborted);
            if (result.MessageType == WebSocketMessageType.Close)
            {
                await socket.CloseAsync(socket.CloseStatus!.Value, socket.CloseStatusDescription, context.RequestAborted);
                return;
            }

            await socket.SendAsync(buffer.AsMemory(0, result.Count), result.MessageType, result.EndOfMessage, context.RequestAborted);
        }
    });

    private static async Task<ClientWebSocket> ConnectAsync(TransportHost host)
    {
        var scheme = host.BaseAddress.Scheme == Uri.UriSchemeHttps ? Uri.UriSchemeWss : Uri.UriSchemeWs;
        var socket = new ClientWebSocket();
        using var client = host.CreateClient();
        await socket.ConnectAsync(new UriBuilder(host.BaseAddress) { Scheme = scheme }.Uri, client, default).OrTimeout();
        return socket;
    }

    private static async Task AssertEchoesAsync(ClientWebSocket socket, WebSocketMessageType type, byte[] message)
    {
        var send = socket.SendAsync(message.AsMemory(), type, endOfMessage: true, default);
        using var received = new MemoryStream();
        var buffer = new byte[16 * 1024];
        ValueWebSocketReceiveResult result;
        do
        {
            result = await socket.ReceiveAsync(buffer.AsMemory(), default).OrTimeout();
            Assert.Equal(type, result.MessageType);
            received.Write(buffer, 0, result.Count);
        }
        while (!result.EndOfMessage);

        await send.OrTimeout();
        TestData.AssertSame(message, received.ToArray());
    }
}
