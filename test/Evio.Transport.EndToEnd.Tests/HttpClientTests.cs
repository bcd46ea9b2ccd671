using System.Net;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>An HttpClient whose connections are evio's, against servers on either transport.</summary>
public sealed class HttpClientTests
{
    [Theory, AllTransports("http1", "http2", "https")]
    public async Task Bodies_go_both_ways(TransportKind server, string protocol)
    {
        var settings = protocol switch { "http2" => HostSettings.Http2, "https" => HostSettings.Https, _ => new HostSettings() };
        await using var host = await TransportHost.StartAsync(server, Applications.EchoWholeAsync, settings);
        await using var services = Services(LoopScheduling.Inline);
        using var client = CreateClient(services, host, protocol == "http1" ? HttpVersion.Version11 : HttpVersion.Version20);

        for (var i = 0; i < 3; i++)
        {
            var sent = TestData.Bytes(2_000_000, seed: i);
            using var response = await client.PostAsync("/", new ByteArrayContent(sent)).OrTimeout();
            TestData.AssertSame(sent, await response.Content.ReadAsByteArrayAsync().OrTimeout());
        }
    }

    [Theory, EvioTransports]
    public async Task A_unix_socket_can_stand_in_for_the_host(TransportKind server)
    {
        using var path = new UnixSocketPath();
        await using var host = await TransportHost.StartAsync(
            server, static context => context.Response.WriteAsync(context.Request.Host.Host), new HostSettings { EndPoint = path.EndPoint });
        await using var services = Services(server.Scheduling());
        var connections = services.GetRequiredService<EvioTransportFactory>();
        using var client = new HttpClient(new SocketsHttpHandler { UseProxy = false }.UseEvioTransport(connections, path.EndPoint));

        Assert.Equal("any.name", await client.GetStringAsync(new Uri("http://any.name/")).OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task Many_requests_at_once_share_connections(TransportKind scheduling)
    {
        await using var host = await TransportHost.StartAsync(
            scheduling, static context => context.Response.WriteAsync(context.Request.Path.Value!));
        await using var services = Services(scheduling.Scheduling());
        using var client = CreateClient(services, host, HttpVersion.Version11, maxConnections: 8);

        var answers = await Task.WhenAll(Enumerable.Range(0, 500).Select(i => client.GetStringAsync($"/{i}"))).OrTimeout();

        Assert.Equal(Enumerable.Range(0, 500).Select(static i => $"/{i}"), answers);
        Assert.InRange(services.GetRequiredService<EvioTransportFactory>().Loops.Sum(static loop => loop.ConnectionCount), 1, 8);
    }

    [Theory, EvioTransports]
    public async Task A_handler_calls_its_own_server_on_the_same_loops(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static application =>
            {
                application.MapGet("/inner", static () => "inner");
                application.MapGet("/outer", static async (HttpContext context, IConnectionFactory connections) =>
                {
                    using var client = new HttpClient(new SocketsHttpHandler { UseProxy = false }.UseEvioTransport(connections));
                    var port = context.Connection.LocalPort;
                    return "outer, " + await client.GetStringAsync(new Uri($"http://127.0.0.1:{port}/inner"));
                });
            },
            new HostSettings { Transport = new TransportSettings { LoopCount = 1 } });
        using var client = host.CreateClient();

        Assert.Equal("outer, inner", await client.GetStringAsync("/outer").OrTimeout());
        Assert.Same(host.Services.GetRequiredService<EvioTransportFactory>(), host.Services.GetRequiredService<IConnectionFactory>());
    }

    [Theory, EvioTransports]
    public async Task A_refused_connection_is_a_request_exception(TransportKind scheduling)
    {
        using var bound = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        bound.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        await using var services = Services(scheduling.Scheduling());
        using var client = new HttpClient(
            new SocketsHttpHandler { UseProxy = false }.UseEvioTransport(services.GetRequiredService<EvioTransportFactory>()));

        var exception = await Assert.ThrowsAsync<HttpRequestException>(
            () => client.GetStringAsync(new Uri($"http://{bound.LocalEndPoint}/"))).OrTimeout();

        Assert.Equal(HttpRequestError.ConnectionError, exception.HttpRequestError);
        Assert.Equal(SocketError.ConnectionRefused, Assert.IsType<SocketException>(exception.InnerException).SocketErrorCode);
    }

    [Theory, EvioTransports]
    public async Task A_cancelled_request_ends_its_connection(TransportKind scheduling)
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var aborted = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(scheduling, async context =>
        {
            using var registration = context.RequestAborted.UnsafeRegister(_ => aborted.SetResult(), null);
            entered.SetResult();
            await aborted.Task;
        });
        await using var services = Services(scheduling.Scheduling());
        using var client = CreateClient(services, host, HttpVersion.Version11);
        using var cancellation = new CancellationTokenSource();

        var request = client.GetStringAsync("/", cancellation.Token);
        await entered.Task.OrTimeout();
        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => request).OrTimeout();
        await aborted.Task.OrTimeout();
    }

    [Theory, EvioTransports]
    public async Task A_response_that_is_cut_is_an_error(TransportKind scheduling)
    {
        await using var host = await TransportHost.StartAsync(scheduling, static async context =>
        {
            context.Response.ContentLength = 1000;
            await context.Response.Body.WriteAsync(Encoding.ASCII.GetBytes("half"));
            await context.Response.Body.FlushAsync();
            context.Abort();
        });
        await using var services = Services(scheduling.Scheduling());
        using var client = CreateClient(services, host, HttpVersion.Version11);

        await Assert.ThrowsAsync<HttpRequestException>(() => client.GetStringAsync("/")).OrTimeout();
    }

    private static ServiceProvider Services(LoopScheduling scheduling) =>
        new ServiceCollection().AddLogging().AddEvioTransport(options => options.Scheduling = scheduling).BuildServiceProvider();

    private static HttpClient CreateClient(ServiceProvider services, TransportHost host, Version version, int maxConnections = int.MaxValue)
    {
        var handler = new SocketsHttpHandler
        {
            UseProxy = false,
            MaxConnectionsPerServer = maxConnections,
            SslOptions = { RemoteCertificateValidationCallback = static (_, certificate, _, _) =>
                certificate?.GetCertHashString() == TestCertificate.Instance.GetCertHashString() },
        };
        return new HttpClient(handler.UseEvioTransport(services.GetRequiredService<EvioTransportFactory>()))
        {
            BaseAddress = host.BaseAddress,
            Timeout = TestTimeouts.Default,
            DefaultRequestVersion = version,
            DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact,
        };
    }
}
