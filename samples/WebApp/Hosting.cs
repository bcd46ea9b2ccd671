using System.Net;
using System.Security.Cryptography.X509Certificates;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Evio.Samples.WebApp;

/// <summary>Puts Kestrel on the chosen transport and gives it its end points.</summary>
internal static partial class Hosting
{
    public static void UseTransport(this WebApplicationBuilder builder, Settings settings)
    {
        if (settings.Transport == TransportKind.Evio)
        {
            builder.WebHost.UseEvioTransport(evio =>
            {
                evio.LoopCount = settings.Loops;
                evio.LoadBalance = settings.Balance;
                evio.Scheduling = settings.Scheduling;
            });
        }
        else
        {
            builder.WebHost.UseSockets(sockets => sockets.UnsafePreferInlineScheduling = settings.Scheduling == LoopScheduling.Inline);
        }
    }

    public static void ListenOn(this WebApplicationBuilder builder, Settings settings)
    {
        // Kestrel ignores urls once an end point is added by Listen(). So the further ports are urls too, and what they speak is
        // chosen when Kestrel asks for the defaults of each end point.
        string[] urls =
        [
            .. settings.Urls,
            .. Loopback("http", settings.RawPort),
            .. Loopback("https", settings.HttpsPort),
            .. Loopback("http", settings.H2cPort),
        ];
        builder.WebHost.UseUrls(urls);
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.ConfigureEndpointDefaults(listen =>
            {
                if (listen.IPEndPoint is { } endPoint && endPoint.Address.Equals(IPAddress.Loopback))
                {
                    if (endPoint.Port == settings.RawPort)
                    {
                        listen.UseConnectionHandler<RawEchoHandler>();
                    }
                    else if (endPoint.Port == settings.H2cPort)
                    {
                        // Without TLS there is no ALPN to choose by: HTTP/2 for clients with prior knowledge.
                        listen.Protocols = HttpProtocols.Http2;
                    }
                }
            });

            var certificate = new Lazy<X509Certificate2>(SelfSignedCertificate.Create);
            kestrel.ConfigureHttpsDefaults(https => https.ServerCertificate = certificate.Value);

            // /upload and /echo keep nothing of the body, so it may have any length.
            kestrel.Limits.MaxRequestBodySize = null;
        });

        static IEnumerable<string> Loopback(string scheme, int? port) => port is null ? [] : [$"{scheme}://{IPAddress.Loopback}:{port}"];
    }

    /// <summary>Logs what the server runs on, once it runs.</summary>
    public static void AnnounceTransport(this WebApplication app, Settings settings) =>
        app.Lifetime.ApplicationStarted.Register(() =>
        {
            var info = app.Services.GetRequiredService<ServerState>().Describe();
            if (info.Balance is null)
            {
                LogSocketsTransport(app.Logger, info.Scheduling);
            }
            else
            {
                LogEvioTransport(app.Logger, info.Scheduling, info.Balance, info.Loops.Count);
            }

            // Kestrel has just called this one http.
            if (settings.RawPort is { } port)
            {
                LogRawPort(app.Logger, IPAddress.Loopback, port);
            }
        });

    [LoggerMessage(1, LogLevel.Information, "Transport: evio, scheduling {Scheduling}, balance {Balance}, loops {Loops}")]
    private static partial void LogEvioTransport(ILogger logger, string scheduling, string balance, int loops);

    [LoggerMessage(2, LogLevel.Information, "Transport: sockets, scheduling {Scheduling}")]
    private static partial void LogSocketsTransport(ILogger logger, string scheduling);

    [LoggerMessage(3, LogLevel.Information, "Raw TCP echo: {Address}:{Port}")]
    private static partial void LogRawPort(ILogger logger, IPAddress address, int port);
}
