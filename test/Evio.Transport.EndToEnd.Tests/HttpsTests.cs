using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class HttpsTests
{
    [Theory, AllTransports(ClientCertificateMode.RequireCertificate, ClientCertificateMode.AllowCertificate)]
    public async Task A_clients_certificate_reaches_the_application(TransportKind kind, ClientCertificateMode mode)
    {
        await using var host = await StartAsync(kind, mode, AnswerThumbprintAsync);
        await using var stream = await OpenAsync(host, TestCertificate.Instance);

        Assert.Equal(TestCertificate.Instance.Thumbprint, await GetAsync(stream));
    }

    [Theory, AllTransports]
    public async Task A_certificate_is_optional_where_it_is_only_allowed(TransportKind kind)
    {
        await using var host = await StartAsync(kind, ClientCertificateMode.AllowCertificate, AnswerThumbprintAsync);
        await using var stream = await OpenAsync(host);

        Assert.Equal("none", await GetAsync(stream));
    }

    [Theory, AllTransports]
    public async Task A_client_without_the_demanded_certificate_is_refused_alone(TransportKind kind)
    {
        await using var host = await StartAsync(kind, ClientCertificateMode.RequireCertificate, AnswerThumbprintAsync);
        await using var with = await OpenAsync(host, TestCertificate.Instance);
        await using var without = await OpenAsync(host);

        await Assert.ThrowsAnyAsync<IOException>(() => GetAsync(without));

        Assert.Equal(TestCertificate.Instance.Thumbprint, await GetAsync(with));
    }

    [Theory, AllTransports]
    public async Task A_certificate_can_be_asked_for_in_the_middle_of_a_connection(TransportKind kind)
    {
        await using var host = await StartAsync(
            kind,
            ClientCertificateMode.DelayCertificate,
            static async context => await context.Response.WriteAsync((await context.Connection.GetClientCertificateAsync())!.Thumbprint));

        // TLS 1.3 has no renegotiation.
        await using var stream = await OpenAsync(host, TestCertificate.Instance, SslProtocols.Tls12);

        Assert.Equal(TestCertificate.Instance.Thumbprint, await GetAsync(stream));
    }

    [Theory, AllTransports(SslProtocols.Tls12, SslProtocols.Tls13)]
    public async Task Every_protocol_version_works(TransportKind kind, SslProtocols protocol)
    {
        await using var host = await StartAsync(
            kind,
            ClientCertificateMode.NoCertificate,
            static context => context.Response.WriteAsync(context.Features.GetRequiredFeature<ITlsHandshakeFeature>().Protocol.ToString()));
        await using var stream = await OpenAsync(host, protocols: protocol);

        Assert.Equal(protocol.ToString(), await GetAsync(stream));
    }

    [Theory, AllTransports]
    public async Task The_certificate_can_depend_on_the_name_asked_for(TransportKind kind)
    {
        var names = new List<string?>();
        await using var host = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("ok"), new HostSettings
        {
            Listen = listen => listen.UseHttps(https => https.ServerCertificateSelector = (connection, name) =>
            {
                names.Add($"{name} {connection?.LocalEndPoint is IPEndPoint}");
                return TestCertificate.Instance;
            }),
        });
        using var client = host.CreateClient();

        Assert.Equal("ok", await client.GetStringAsync("/").OrTimeout());

        Assert.Equal(["localhost True"], names);
    }

    [Theory, AllTransports]
    public async Task A_handshake_sent_byte_by_byte_succeeds(TransportKind kind)
    {
        await using var host = await StartAsync(kind, ClientCertificateMode.NoCertificate, static context => context.Response.WriteAsync("ok"));
        await using var stream = await AuthenticateAsync(new SlowStream(await host.ConnectAsync()), certificate: null, SslProtocols.None);

        Assert.Equal("ok", await GetAsync(stream));
    }

    [Theory, AllTransports]
    public async Task Broken_handshakes_leave_no_block_behind(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using (var host = await TransportHost.StartAsync(
            kind,
            Applications.EchoAsync,
            HostSettings.Https with { Services = services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools) }))
        {
            using var metrics = new CollectedMetrics(host);
            byte[][] beginnings = [[], [22], [22, 3, 1, 2, 0], "GET / HTTP/1.1\r\n\r\n"u8.ToArray(), TestData.Bytes(20_000)];
            foreach (var beginning in beginnings)
            {
                foreach (var reset in new[] { false, true })
                {
                    var client = await host.ConnectAsync();
                    await client.SendAllAsync(beginning).OrTimeout();
                    if (reset)
                    {
                        client.Reset();
                    }

                    client.Dispose();
                }
            }

            await Eventually.HoldsAsync(() => metrics.EndedConnections.Count == 2 * beginnings.Length);
            Assert.Equal(0, metrics.ActiveConnections);
            await host.StopAsync().OrTimeout();
        }

        Assert.Equal(0, pools.Outstanding);
        Assert.Equal(0, pools.DoubleReturns);
    }

    private static Task<TransportHost> StartAsync(TransportKind kind, ClientCertificateMode mode, RequestDelegate application) =>
        TransportHost.StartAsync(kind, application, new HostSettings
        {
            Listen = listen =>
            {
                listen.Protocols = HttpProtocols.Http1;
                listen.UseHttps(https =>
                {
                    https.ServerCertificate = TestCertificate.Instance;
                    https.ClientCertificateMode = mode;
                    https.AllowAnyClientCertificate();
                });
            },
        });

    private static Task AnswerThumbprintAsync(HttpContext context) =>
        context.Response.WriteAsync(context.Connection.ClientCertificate?.Thumbprint ?? "none");

    private static async Task<SslStream> OpenAsync(
        TransportHost host, X509Certificate2? certificate = null, SslProtocols protocols = SslProtocols.None) =>
        await AuthenticateAsync(new NetworkStream(await host.ConnectAsync(), ownsSocket: true), certificate, protocols);

    private static async Task<SslStream> AuthenticateAsync(Stream inner, X509Certificate2? certificate, SslProtocols protocols)
    {
        var stream = new SslStream(inner);
        await stream.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
        {
            TargetHost = "localhost",
            EnabledSslProtocols = protocols,
            AllowRenegotiation = true,
            ClientCertificates = certificate is null ? null : [certificate],
            RemoteCertificateValidationCallback = static (_, server, _, _) =>
                server?.GetCertHashString() == TestCertificate.Instance.GetCertHashString(),
        }).OrTimeout();
        return stream;
    }

    /// <summary>Sends one request, and returns the body of its answer.</summary>
    private static async Task<string> GetAsync(SslStream stream)
    {
        await stream.WriteAsync("GET / HTTP/1.0\r\n\r\n"u8.ToArray()).AsTask().OrTimeout();
        using var received = new MemoryStream();
        await stream.CopyToAsync(received).OrTimeout();
        var answer = Encoding.ASCII.GetString(received.ToArray());
        if (answer.Length == 0)
        {
            throw new EndOfStreamException();
        }

        return answer[(answer.IndexOf("\r\n\r\n", StringComparison.Ordinal) + 4)..];
    }

    /// <summary>Sends every byte by itself.</summary>
    private sealed class SlowStream(Socket socket) : NetworkStream(socket, ownsSocket: true)
    {
        public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            for (var i = 0; i < buffer.Length; i++)
            {
                await base.WriteAsync(buffer.Slice(i, 1), cancellationToken);
            }
        }
    }
}
