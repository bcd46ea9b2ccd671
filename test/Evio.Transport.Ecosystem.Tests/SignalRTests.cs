using System.Diagnostics.CodeAnalysis;
using System.Threading.Channels;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http.Connections;
using Microsoft.AspNetCore.SignalR;
using Microsoft.AspNetCore.SignalR.Client;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Ecosystem.Tests;

/// <summary>SignalR, server and client from its packages, over each of its own transports.</summary>
public sealed class SignalRTests
{
    private const HttpTransportType WebSockets = HttpTransportType.WebSockets;
    private const HttpTransportType ServerSentEvents = HttpTransportType.ServerSentEvents;
    private const HttpTransportType LongPolling = HttpTransportType.LongPolling;

    [Theory, AllTransports(WebSockets, ServerSentEvents, LongPolling)]
    public async Task Invocations_return(TransportKind kind, HttpTransportType type)
    {
        await using var host = await StartAsync(kind);
        await using var connection = await ConnectAsync(host, type);

        for (var i = 0; i < 20; i++)
        {
            Assert.Equal($"{type} {i}", await connection.InvokeAsync<string>(nameof(TestHub.Echo), $"{type} {i}").OrTimeout());
        }
    }

    [Theory, AllTransports(WebSockets, ServerSentEvents, LongPolling)]
    public async Task Large_messages_come_back(TransportKind kind, HttpTransportType type)
    {
        await using var host = await StartAsync(kind);
        await using var connection = await ConnectAsync(host, type);
        var sent = Convert.ToHexString(TestData.Bytes(500_000));

        Assert.Equal(sent, await connection.InvokeAsync<string>(nameof(TestHub.Echo), sent).OrTimeout());
    }

    [Theory, AllTransports(WebSockets, ServerSentEvents, LongPolling)]
    public async Task Parallel_invocations_find_their_callers(TransportKind kind, HttpTransportType type)
    {
        await using var host = await StartAsync(kind);
        await using var connection = await ConnectAsync(host, type);

        var answers = await Task.WhenAll(
            Enumerable.Range(0, 100).Select(i => connection.InvokeAsync<string>(nameof(TestHub.Echo), $"{i}"))).OrTimeout();

        Assert.Equal(Enumerable.Range(0, 100).Select(static i => $"{i}"), answers);
    }

    [Theory, AllTransports(WebSockets, ServerSentEvents, LongPolling)]
    public async Task A_stream_from_the_server_arrives_in_order(TransportKind kind, HttpTransportType type)
    {
        await using var host = await StartAsync(kind);
        await using var connection = await ConnectAsync(host, type);

        var received = new List<int>();
        await foreach (var item in connection.StreamAsync<int>(nameof(TestHub.Count), 500).WithCancellation(TestContext.Current.CancellationToken))
        {
            received.Add(item);
        }

        Assert.Equal(Enumerable.Range(0, 500), received);
    }

    [Theory, AllTransports(WebSockets, ServerSentEvents, LongPolling)]
    public async Task A_stream_to_the_server_arrives_in_order(TransportKind kind, HttpTransportType type)
    {
        await using var host = await StartAsync(kind);
        await using var connection = await ConnectAsync(host, type);
        var channel = Channel.CreateUnbounded<int>();
        var gathering = connection.InvokeAsync<int[]>(nameof(TestHub.Gather), channel.Reader);

        for (var i = 0; i < 200; i++)
        {
            await channel.Writer.WriteAsync(i);
        }

        channel.Writer.Complete();

        Assert.Equal(Enumerable.Range(0, 200), await gathering.OrTimeout());
    }

    [Theory, AllTransports(WebSockets, ServerSentEvents, LongPolling)]
    public async Task The_server_calls_every_client(TransportKind kind, HttpTransportType type)
    {
        await using var host = await StartAsync(kind);
        await using var first = await ConnectAsync(host, type);
        await using var second = await ConnectAsync(host, type);
        var received = new[] { first, second }.Select(static connection =>
        {
            var told = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
            connection.On<string>("told", told.SetResult);
            return told.Task;
        }).ToArray();

        await first.InvokeAsync(nameof(TestHub.TellAll), "news").OrTimeout();

        Assert.Equal(["news", "news"], await Task.WhenAll(received).OrTimeout());
    }

    [Theory, AllTransports(WebSockets, ServerSentEvents, LongPolling)]
    public async Task A_client_that_leaves_is_noticed(TransportKind kind, HttpTransportType type)
    {
        await using var host = await StartAsync(kind);
        var connection = await ConnectAsync(host, type);
        Assert.Equal("here", await connection.InvokeAsync<string>(nameof(TestHub.Echo), "here").OrTimeout());

        await connection.DisposeAsync().OrTimeout();

        await host.Services.GetRequiredService<Departures>().First.Task.OrTimeout();
    }

    [Theory, AllTransports(WebSockets, ServerSentEvents, LongPolling)]
    public async Task The_stop_of_the_server_closes_the_connection(TransportKind kind, HttpTransportType type)
    {
        await using var host = await StartAsync(kind);
        await using var connection = await ConnectAsync(host, type);
        var closed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        connection.Closed += _ =>
        {
            closed.SetResult();
            return Task.CompletedTask;
        };

        await host.StopAsync().OrTimeout();

        await closed.Task.OrTimeout();
    }

    private static Task<TransportHost> StartAsync(TransportKind kind) =>
        TransportHost.StartAsync(kind, static application => application.MapHub<TestHub>("/hub"), new HostSettings
        {
            Services = static services => services
                .AddSingleton<Departures>()
                .AddSignalR(static options => options.MaximumReceiveMessageSize = 4_000_000),
        });

    private static async Task<HubConnection> ConnectAsync(TransportHost host, HttpTransportType type)
    {
        var connection = new HubConnectionBuilder()
            .WithUrl(new Uri($"http://{host.EndPoint}/hub"), options =>
            {
                options.Transports = type;
                options.UseDefaultCredentials = false;
            })
            .Build();
        await connection.StartAsync().OrTimeout();
        return connection;
    }

    private sealed class Departures
    {
        public TaskCompletionSource First { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }

    [SuppressMessage("Performance", "CA1822", Justification = "A hub's methods are instance methods.")]
    private sealed class TestHub(Departures departures) : Hub
    {
        public string Echo(string text) => text;

        public Task TellAll(string text) => Clients.All.SendAsync("told", text);

        public async IAsyncEnumerable<int> Count(int count)
        {
            for (var i = 0; i < count; i++)
            {
                yield return i;
                await Task.Yield();
            }
        }

        public async Task<List<int>> Gather(ChannelReader<int> items)
        {
            var gathered = new List<int>();
            await foreach (var item in items.ReadAllAsync())
            {
                gathered.Add(item);
            }

            return gathered;
        }

        public override Task OnDisconnectedAsync(Exception? exception)
        {
            departures.First.TrySetResult();
            return base.OnDisconnectedAsync(exception);
        }
    }
}
