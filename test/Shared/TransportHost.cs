using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.Testing;

internal sealed record HostSettings
{
    public TransportSettings Transport { get; init; } = TransportSettings.Default;

    public EndPoint EndPoint { get; init; } = new IPEndPoint(IPAddress.Loopback, 0);

    /// <summary>How <see cref="EndPoint"/> is served: plain HTTP/1.1 unless set up otherwise.</summary>
    public Action<ListenOptions> Listen { get; init; } = static listen => listen.Protocols = HttpProtocols.Http1;

    public Action<KestrelServerOptions> Kestrel { get; init; } = static _ => { };

    public Action<IServiceCollection> Services { get; init; } = static _ => { };

    public static HostSettings Http2 { get; } = new() { Listen = static listen => listen.Protocols = HttpProtocols.Http2 };

    public static HostSettings Https { get; } = new() { Listen = static listen => listen.UseHttps(TestCertificate.Instance) };
}

/// <summary>A Kestrel server in this process on a chosen transport.</summary>
internal sealed class TransportHost : IAsyncDisposable
{
    private readonly WebApplication _application;

    private readonly StrictMemoryPoolFactory? _pools;

    private TransportHost(WebApplication application, CollectedLogs logs)
    {
        _application = application;
        _pools = application.Services.GetService<IMemoryPoolFactory<byte>>() as StrictMemoryPoolFactory;
        Logs = logs;
    }

    public CollectedLogs Logs { get; }

    public IServiceProvider Services => _application.Services;

    /// <summary>Where clients of this machine connect to: the bound address, or loopback where that is a wildcard.</summary>
    public EndPoint EndPoint { get; private init; } = null!;

    public Uri BaseAddress { get; private init; } = null!;

    /// <summary>Everything that the server says it listens on.</summary>
    public IEnumerable<Uri> Addresses => _application.Urls.Select(static url => new Uri(url));

    public static async Task<TransportHost> StartAsync(TransportKind kind, Action<WebApplication> configure, HostSettings? settings = null)
    {
        settings ??= new HostSettings();
        var logs = new CollectedLogs();
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders().AddProvider(logs).SetMinimumLevel(LogLevel.Trace);
        settings.Transport.Use(kind, builder.WebHost);
        builder.WebHost.ConfigureKestrel(options =>
        {
            settings.Kestrel(options);
            options.Listen(settings.EndPoint, settings.Listen);
        });

        // Whatever only ends when this runs out counts as a hang.
        builder.Services.Configure<HostOptions>(static options => options.ShutdownTimeout = TimeSpan.FromMinutes(10));
        builder.Services.AddSingleton<IMemoryPoolFactory<byte>>(new StrictMemoryPoolFactory());
        settings.Services(builder.Services);
        var application = builder.Build();
        try
        {
            configure(application);
            await application.StartAsync().OrTimeout();
            var (endPoint, baseAddress) = Locate(settings.EndPoint, new Uri(application.Urls.Last()));
            return new TransportHost(application, logs) { EndPoint = endPoint, BaseAddress = baseAddress };
        }
        catch
        {
            await application.DisposeAsync().OrTimeout();
            throw;
        }
    }

    /// <summary>A host whose every request is answered by <paramref name="handler"/>.</summary>
    public static Task<TransportHost> StartAsync(
        TransportKind kind, Microsoft.AspNetCore.Http.RequestDelegate handler, HostSettings? settings = null) =>
        StartAsync(kind, application => application.Run(handler), settings);

    public Task<Socket> ConnectAsync(Action<Socket>? configure = null) => SocketExtensions.ConnectAsync(EndPoint, configure);

    /// <summary>A client that speaks exactly <paramref name="version"/>, HTTP/1.1 by default, and follows and adds nothing.</summary>
    /// <remarks>
    /// Over HTTP/2 the client says nothing once it has its answers: no window update, for that its window is too large, and no PING to size it, which
    /// runtimeconfig.template.json turns off. What arrives after the server has closed a connection in order is answered with a reset
    /// (RFC 9293, 3.10.7.1), on the reference as well, and the client then drops the answers that it has not read yet.
    /// </remarks>
    public HttpClient CreateClient(Version? version = null, EndPoint? endPoint = null)
    {
        var handler = new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            UseCookies = false,
            UseProxy = false,
            InitialHttp2StreamWindowSize = 16 * 1024 * 1024,
            ConnectCallback = async (_, _) =>
                new NetworkStream(await SocketExtensions.ConnectAsync(endPoint ?? EndPoint), ownsSocket: true),
            SslOptions = new SslClientAuthenticationOptions
            {
                RemoteCertificateValidationCallback = static (_, certificate, _, _) =>
                    certificate?.GetCertHashString() == TestCertificate.Instance.GetCertHashString(),
            },
        };
        return new HttpClient(handler)
        {
            BaseAddress = BaseAddress,
            Timeout = TestTimeouts.Default,
            DefaultRequestVersion = version ?? HttpVersion.Version11,
            DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact,
        };
    }

    public Task StopAsync(CancellationToken cancellationToken = default) => _application.StopAsync(cancellationToken);

    public async ValueTask DisposeAsync()
    {
        try
        {
            await _application.DisposeAsync().OrTimeout();
        }
        finally
        {
            _pools?.AssertKept();
        }
    }

    private static (EndPoint EndPoint, Uri BaseAddress) Locate(EndPoint asked, Uri bound)
    {
        if (asked is not IPEndPoint { Address: var address })
        {
            return (asked, new Uri("http://localhost/"));
        }

        var target = address.Equals(IPAddress.Any) ? IPAddress.Loopback
            : address.Equals(IPAddress.IPv6Any) ? IPAddress.IPv6Loopback
            : address;
        return (new IPEndPoint(target, bound.Port), new Uri($"{bound.Scheme}://localhost:{bound.Port}/"));
    }
}
