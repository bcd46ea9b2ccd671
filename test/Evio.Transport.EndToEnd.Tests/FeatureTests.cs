using System.Collections.Concurrent;
using System.Net;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>The same probe on both transports: which features a connection, and a request on it, has.</summary>
public sealed class FeatureTests
{
    // The Sockets transport has the end points as properties of the connection only.
    private static readonly Type[] Extras = [typeof(IConnectionEndPointFeature)];

    // Every feature interface of the framework, whether a collection lists it or not.
    private static readonly Type[] KnownFeatures =
    [
        .. new[] { typeof(ConnectionContext), typeof(IConnectionIdFeature), typeof(IHttpRequestFeature), typeof(ListenOptions), typeof(HttpContext) }
            .Select(static type => type.Assembly)
            .Distinct()
            .SelectMany(static assembly => assembly.GetExportedTypes())
            .Where(static type => type.IsInterface && type.Name.EndsWith("Feature", StringComparison.Ordinal)),
    ];

    public enum Wire
    {
        Tcp,
        Unix,
        Tls,
    }

    [Theory, EvioTransports(Wire.Tcp, Wire.Unix, Wire.Tls)]
    public async Task A_connection_has_the_features_of_the_reference(TransportKind kind, Wire wire)
    {
        var expected = await ProbeAsync(TransportKind.Sockets, wire);
        var actual = await ProbeAsync(kind, wire);

        Assert.Equal(expected.Keys.Order(), actual.Keys.Order());
        foreach (var (place, features) in expected)
        {
            Assert.NotEmpty(features);
            Assert.Equal(Names(features), Names(actual[place].Except(Extras)));
        }
    }

    [Theory, AllTransports(Wire.Tcp, Wire.Unix, Wire.Tls)]
    public async Task A_connection_lists_exactly_the_features_that_it_gives(TransportKind kind, Wire wire)
    {
        var found = new TaskCompletionSource<(Type[] Listed, Type[] Given)>(TaskCreationOptions.RunContinuationsAsynchronously);
        using var path = new UnixSocketPath();
        await using var host = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("ok"), Settings(wire, path, connection =>
            found.TrySetResult(([.. connection.Features.Select(static feature => feature.Key)], Given(connection.Features)))));
        using var client = host.CreateClient();

        Assert.Equal("ok", await client.GetStringAsync("/").OrTimeout());

        var (listed, given) = await found.Task.OrTimeout();
        Assert.Equal(listed.Length, listed.Distinct().Count());
        Assert.Subset(listed.ToHashSet(), given.ToHashSet());
    }

    private static async Task<IReadOnlyDictionary<string, Type[]>> ProbeAsync(TransportKind kind, Wire wire)
    {
        var places = new ConcurrentDictionary<string, Type[]>();
        using var path = new UnixSocketPath();
        await using var host = await TransportHost.StartAsync(
            kind,
            context =>
            {
                places["given by the request"] = Given(context.Features);
                places["listed by the request"] = [.. context.Features.Select(static feature => feature.Key)];
                return context.Response.WriteAsync("ok");
            },
            Settings(wire, path, connection =>
            {
                places["given by the connection"] = Given(connection.Features);
                places["listed by the connection"] = [.. connection.Features.Select(static feature => feature.Key)];
            }));
        using var client = host.CreateClient();
        Assert.Equal("ok", await client.GetStringAsync("/").OrTimeout());
        return places;
    }

    private static HostSettings Settings(Wire wire, UnixSocketPath path, Action<ConnectionContext> probe) => new()
    {
        EndPoint = wire is Wire.Unix ? path.EndPoint : new IPEndPoint(IPAddress.Loopback, 0),
        Listen = listen =>
        {
            listen.Protocols = HttpProtocols.Http1;
            if (wire is Wire.Tls)
            {
                listen.UseHttps(TestCertificate.Instance);
            }

            listen.Use(application => connection =>
            {
                probe(connection);
                return application(connection);
            });
        },
    };

    private static Type[] Given(IFeatureCollection features) => [.. KnownFeatures.Where(type => features[type] is not null)];

    private static IEnumerable<string> Names(IEnumerable<Type> types) => types.Select(static type => type.FullName!).Order(StringComparer.Ordinal);
}
