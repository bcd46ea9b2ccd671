using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Tests.Connections;

/// <summary>What a connection says about itself from the start, and its features.</summary>
public sealed class ConnectionIdentityTests
{
    [Theory, AllTransports]
    public async Task Its_end_points_are_those_of_the_client_reversed(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        Assert.Equal(pair.Client.LocalEndPoint, pair.Connection.RemoteEndPoint);
        Assert.Equal(pair.Client.RemoteEndPoint, pair.Connection.LocalEndPoint);
    }

    [Theory, AllTransports]
    public async Task Its_end_points_stay_known_after_the_client_is_gone(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var (local, remote) = (pair.Client.LocalEndPoint, pair.Client.RemoteEndPoint);

        pair.Client.Reset();
        await pair.Connection.ConnectionClosed.WhenCancelled();

        Assert.Equal(local, pair.Connection.RemoteEndPoint);
        Assert.Equal(remote, pair.Connection.LocalEndPoint);
    }

    [Theory, AllTransports]
    public async Task An_IPv4_client_of_the_IPv6_wildcard_has_a_mapped_address(TransportKind kind)
    {
        Assert.SkipUnless(Socket.OSSupportsIPv6, "This machine has no IPv6.");
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync(new IPEndPoint(IPAddress.IPv6Any, 0));
        await using var pair = await ConnectedPair.ThroughAsync(
            listener, new IPEndPoint(IPAddress.Loopback, ((IPEndPoint)listener.EndPoint).Port));

        var remote = Assert.IsType<IPEndPoint>(pair.Connection.RemoteEndPoint);
        Assert.Equal(IPAddress.Loopback.MapToIPv6(), remote.Address);
        Assert.Equal(((IPEndPoint)pair.Client.LocalEndPoint!).Port, remote.Port);
    }

    [Theory, AllTransports]
    public async Task A_unix_connection_names_its_path(TransportKind kind)
    {
        using var path = new UnixSocketPath();
        await using var pair = await ConnectedPair.CreateAsync(kind, endPoint: path.EndPoint);

        Assert.Equal(path.Path, Assert.IsType<UnixDomainSocketEndPoint>(pair.Connection.LocalEndPoint).ToString());
        Assert.Equal(string.Empty, Assert.IsType<UnixDomainSocketEndPoint>(pair.Connection.RemoteEndPoint).ToString());
    }

    [Theory, AllTransports]
    public async Task Its_id_is_there_and_stays_the_same(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        var id = pair.Connection.ConnectionId;

        Assert.NotEmpty(id);
        Assert.Equal(id, pair.Connection.ConnectionId);
        Assert.Equal(id, pair.Connection.Features.Get<IConnectionIdFeature>()!.ConnectionId);
    }

    [Theory, AllTransports]
    public async Task Its_items_are_empty_kept_and_replaceable(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var connection = pair.Connection;

        Assert.Empty(connection.Items);
        connection.Items["key"] = "value";
        Assert.Equal("value", connection.Items["key"]);
        Assert.Same(connection.Items, connection.Features.Get<IConnectionItemsFeature>()!.Items);

        var other = new Dictionary<object, object?>();
        connection.Items = other;
        Assert.Same(other, connection.Features.Get<IConnectionItemsFeature>()!.Items);
    }

    [Theory, AllTransports]
    public async Task Its_transport_is_a_feature_and_replaceable(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var connection = pair.Connection;
        var feature = connection.Features.Get<IConnectionTransportFeature>()!;
        var original = connection.Transport;
        Assert.Same(original, feature.Transport);

        var other = new DuplexPipe(original.Input, original.Output);
        feature.Transport = other;

        Assert.Same(other, connection.Transport);
    }

    [Theory, EvioTransports]
    public async Task Its_end_points_are_a_feature(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var feature = pair.Connection.Features.Get<IConnectionEndPointFeature>()!;

        Assert.Equal(pair.Connection.LocalEndPoint, feature.LocalEndPoint);
        Assert.Equal(pair.Connection.RemoteEndPoint, feature.RemoteEndPoint);
    }

    [Theory, AllTransports]
    public async Task Its_lifetime_is_a_feature(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var feature = pair.Connection.Features.Get<IConnectionLifetimeFeature>()!;
        Assert.Equal(pair.Connection.ConnectionClosed, feature.ConnectionClosed);
        Assert.False(feature.ConnectionClosed.IsCancellationRequested);

        feature.Abort();

        await pair.Connection.ConnectionClosed.WhenCancelled();
        Assert.Equal(SocketError.ConnectionReset, await pair.Client.ReceiveErrorAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Its_memory_pool_is_made_by_the_registered_factory(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await ConnectedPair.CreateAsync(
            kind, configureServices: services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools));

        var pool = pair.Connection.Features.Get<IMemoryPoolFeature>()!.MemoryPool;

        Assert.Equal(1, pools.Owning(pool));
    }

    [Theory, AllTransports]
    public async Task Its_socket_shows_the_options_and_addresses_of_the_connection(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        var socket = pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket;

        Assert.Equal(pair.Connection.RemoteEndPoint, socket.RemoteEndPoint);
        Assert.Equal(pair.Connection.LocalEndPoint, socket.LocalEndPoint);
        Assert.True(socket.NoDelay);
        Assert.Same(socket, pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket);
    }

    [Theory, AllTransports]
    public async Task Options_set_on_its_socket_take_effect(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var socket = pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket;

        socket.NoDelay = false;
        socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);

        Assert.False(socket.NoDelay);
        Assert.NotEqual(0, (int)socket.GetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive)!);
        await pair.Output.WriteAsync("still works"u8.ToArray()).OrTimeout();
        Assert.Equal("still works"u8.ToArray(), await pair.Client.ReceiveExactlyAsync(11).OrTimeout());
    }

    [Theory, AllTransports]
    public async Task All_its_features_can_be_enumerated(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        var features = pair.Connection.Features.ToDictionary();

        Type[] expected =
        [
            typeof(IConnectionIdFeature), typeof(IConnectionTransportFeature), typeof(IConnectionItemsFeature), typeof(IMemoryPoolFeature),
            typeof(IConnectionLifetimeFeature), typeof(IConnectionSocketFeature),
        ];
        Assert.Equal(expected.Order(ByName), features.Keys.Where(expected.Contains).Order(ByName));
        Assert.All(features, static feature => Assert.True(feature.Key.IsInstanceOfType(feature.Value)));
        Assert.All(features, feature => Assert.Same(feature.Value, pair.Connection.Features[feature.Key]));
    }

    [Theory, EvioTransports]
    public async Task It_has_every_feature_that_the_reference_has(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        await using var reference = await ConnectedPair.CreateAsync(TransportKind.Sockets);

        Assert.Superset(
            reference.Connection.Features.Select(static feature => feature.Key).ToHashSet(),
            pair.Connection.Features.Select(static feature => feature.Key).ToHashSet());
    }

    [Theory, AllTransports]
    public async Task Features_can_be_added_replaced_and_removed(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var features = pair.Connection.Features;
        Assert.Null(features.Get<Custom>());
        var revision = features.Revision;

        var first = new Custom();
        features.Set(first);
        Assert.Same(first, features.Get<Custom>());
        Assert.Same(first, features[typeof(Custom)]);
        Assert.NotEqual(revision, features.Revision);
        Assert.Contains(features, static feature => feature.Key == typeof(Custom));

        var second = new Custom();
        features[typeof(Custom)] = second;
        Assert.Same(second, features.Get<Custom>());

        features.Set<Custom>(null);
        Assert.Null(features.Get<Custom>());
        Assert.Null(features[typeof(Custom)]);
        Assert.DoesNotContain(features, static feature => feature.Key == typeof(Custom));
    }

    [Theory, AllTransports]
    public async Task A_built_in_feature_can_be_replaced(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var features = pair.Connection.Features;
        var replacement = new OtherId();

        features.Set<IConnectionIdFeature>(replacement);

        Assert.Same(replacement, features.Get<IConnectionIdFeature>());
        Assert.Same(replacement, features[typeof(IConnectionIdFeature)]);
        Assert.Same(replacement, Assert.Single(features, static feature => feature.Key == typeof(IConnectionIdFeature)).Value);
    }

    private static readonly Comparer<Type> ByName = Comparer<Type>.Create(static (a, b) => string.CompareOrdinal(a.FullName, b.FullName));

    private sealed class Custom;

    private sealed class OtherId : IConnectionIdFeature
    {
        public string ConnectionId { get; set; } = "other";
    }

    private sealed record DuplexPipe(PipeReader Input, PipeWriter Output) : IDuplexPipe;
}
