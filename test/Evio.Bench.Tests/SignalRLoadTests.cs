using System.Diagnostics;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.Logging;

namespace Evio.Bench.Tests;

/// <summary>What load.c takes for an answer of a hub. In the answers here, ID and TEXT stand for those of the invocation.</summary>
public sealed class SignalRLoadTests : IClassFixture<LoadGeneratorTests.Program>
{
    private const string Hello = "{}\u001e";
    private const string Ping = "{\"type\":6}\u001e";
    private const string Completion = "{\"type\":3,\"invocationId\":\"ID\",\"result\":\"TEXT\"}\u001e";

    private readonly LoadGeneratorTests.Program _program;

    public SignalRLoadTests(LoadGeneratorTests.Program program)
    {
        Assert.SkipUnless(Tool.Compiler.IsInstalled, "There is no C compiler.");
        _program = program;
    }

    [Theory]
    [InlineData(Hello, Completion, 1000, 64)]
    [InlineData(Hello + Ping, Ping + Completion + Ping, 1000, 200)]
    [InlineData(Hello, Ping + Completion, 1, 64)]
    public async Task AnAnswerIsTakenInAnyFramesAndWithPings(string hello, string answer, int frameSize, int textSize)
    {
        var result = await RunAsync(hello, answer, frameSize, textSize);

        Assert.Equal((0, null), (result.Failed, result.Failure));
        Assert.True(result.Requests > 0);
    }

    [Theory]
    [InlineData(Hello, "{\"type\":3,\"invocationId\":\"0\",\"result\":\"TEXT\"}\u001e")]
    [InlineData(Hello, "{\"type\":3,\"invocationId\":\"ID\",\"result\":\"TEXTx\"}\u001e")]
    [InlineData(Hello, Completion + Completion)]
    [InlineData("{\"error\":\"no\"}\u001e", Completion)]
    public async Task AnotherAnswerIsAFailure(string hello, string answer)
    {
        var result = await RunAsync(hello, answer, frameSize: 1000, textSize: 64);

        Assert.True(result.Failed > 0);
        Assert.StartsWith("another message than it had to be: {", result.Failure, StringComparison.Ordinal);
    }

    private async Task<LoadResult> RunAsync(string hello, string answer, int frameSize, int textSize)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        await using var app = builder.Build();
        app.UseWebSockets();
        app.Map("/hub", async context =>
        {
            using var socket = await context.WebSockets.AcceptWebSocketAsync();
            await AnswerAsync(socket, hello, answer, frameSize, context.RequestAborted);
        });
        await app.StartAsync(TestContext.Current.CancellationToken);

        var load = new OwnLoad("signalr", "--connections", "2", "--path", "/hub", "--size", $"{textSize}");
        var arguments = load.Arguments(new Uri(app.Urls.Single()).Port, seconds: 1, scratch: "");
        return OwnLoad.Parse(await Child.RunToEndAsync(new ProcessStartInfo(_program.Path, arguments), TestContext.Current.CancellationToken));
    }

    private static async Task AnswerAsync(WebSocket socket, string hello, string answer, int frameSize, CancellationToken end)
    {
        var input = new byte[4096];
        try
        {
            Assert.Equal("{\"protocol\":\"json\",\"version\":1}\u001e", await ReceiveAsync());
            await SendAsync(hello);
            while (true)
            {
                using var invocation = JsonDocument.Parse((await ReceiveAsync()).TrimEnd('\u001e'));
                var id = invocation.RootElement.GetProperty("invocationId").GetString();
                await SendAsync(answer.Replace("ID", id, StringComparison.Ordinal)
                    .Replace("TEXT", invocation.RootElement.GetProperty("arguments")[0].GetString(), StringComparison.Ordinal));
            }
        }
        catch (Exception gone) when (gone is WebSocketException or OperationCanceledException)
        {
            // The generator ends its connections without closing them.
        }

        async Task<string> ReceiveAsync() => Encoding.UTF8.GetString(input, 0, (await socket.ReceiveAsync(input.AsMemory(), end)).Count);

        async Task SendAsync(string text)
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            for (var sent = 0; sent < bytes.Length; sent += frameSize)
            {
                var size = Math.Min(frameSize, bytes.Length - sent);
                var isLast = sent + size == bytes.Length;
                await socket.SendAsync(bytes.AsMemory(sent, size), WebSocketMessageType.Text, isLast, end);
            }
        }
    }
}
