using Evio.Transport.Native;

namespace Evio.Samples.WebApp.Native;

/// <summary>Runs the servers of the callback API beside the web application, for as long as that runs.</summary>
internal sealed partial class NativeServers(Settings settings, ILogger<NativeServers> logger) : IHostedService, IAsyncDisposable
{
    private readonly List<EvioServer> _servers = [];

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        // The fallback on System.Net.Sockets has the same callbacks, and so the same servers.
        var suffix = settings.Transport == TransportKind.Sockets ? "-net" : "";
        await ServeAsync("echo", EchoServer.Create, $"tcp{suffix}", settings.EchoPort);
        await ServeAsync("UDP echo", EchoServer.Create, $"udp{suffix}", settings.UdpEchoPort);
        await ServeAsync("HTTP", HelloServer.Create, $"tcp{suffix}", settings.NativeHttpPort);
        await ServeAsync("Redis", RedisServer.Create, $"tcp{suffix}", settings.RedisPort);
    }

    public Task StopAsync(CancellationToken cancellationToken) =>
        Task.WhenAll(_servers.Select(static server => server.StopAsync(TimeSpan.FromMilliseconds(500))));

    public async ValueTask DisposeAsync()
    {
        foreach (var server in _servers)
        {
            await server.DisposeAsync();
        }
    }

    private async Task ServeAsync(string name, Func<int, Events> create, string scheme, int? port)
    {
        if (port is not null)
        {
            var events = create(settings.Loops);
            events.LoadBalance = settings.Balance;
            var address = $"{scheme}://127.0.0.1:{port}";
            _servers.Add(await EvioServer.StartAsync(events, address));
            LogServing(logger, name, address);
        }
    }

    [LoggerMessage(1, LogLevel.Information, "Native {Name} server: {Address}")]
    private static partial void LogServing(ILogger logger, string name, string address);
}
