using System.Buffers;
using System.Collections;
using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http.Features;

namespace Evio.Transport;

/// <summary>
/// The features of a connection, the same as those of the framework's Sockets transport. The connection is its own feature collection, so
/// that neither a collection nor a dictionary is allocated for each connection.
/// </summary>
internal sealed partial class EvioConnection :
    IFeatureCollection,
    IConnectionIdFeature,
    IConnectionTransportFeature,
    IConnectionItemsFeature,
    IMemoryPoolFeature,
    IConnectionLifetimeFeature,
    IConnectionEndPointFeature,
    IConnectionSocketFeature,
    IEventLoopFeature
{
    // IEventLoopFeature can be requested and is not listed: the list is that of the Sockets transport.
    private static readonly Type[] OwnFeatures =
    [
        typeof(IConnectionIdFeature),
        typeof(IConnectionTransportFeature),
        typeof(IConnectionItemsFeature),
        typeof(IMemoryPoolFeature),
        typeof(IConnectionLifetimeFeature),
        typeof(IConnectionEndPointFeature),
        typeof(IConnectionSocketFeature),
    ];

    /// <summary>The socket of a connection that has ended.</summary>
    private static readonly Lazy<Socket> EndedSocket = new(static () =>
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
        socket.Dispose();
        return socket;
    }, LazyThreadSafetyMode.PublicationOnly);

    // Features that were set from outside. Each takes the place of an own feature of the same type. Kestrel sets four, and more with TLS. A
    // search from the front finds them faster than a hash.
    private KeyValuePair<Type, object?>[] _setFeatures = [];
    private int _setFeatureCount;
    private int _featureRevision;

    private IDuplexPipe _transport;
    private string? _connectionId;
    private IDictionary<object, object?>? _items;
    private EndPoint? _localEndPoint;
    private EndPoint? _remoteEndPoint;
    private CancellationToken? _connectionClosedToken;

    public override string ConnectionId
    {
        get => _connectionId ??= ConnectionIds.Next();
        set => _connectionId = value;
    }

    public override IFeatureCollection Features => this;

    public override IDictionary<object, object?> Items
    {
        get => _items ??= new ConnectionItems();
        set => _items = value;
    }

    public override IDuplexPipe Transport
    {
        get => _transport;
        set => _transport = value;
    }

    public override EndPoint? LocalEndPoint
    {
        get => _localEndPoint ?? Socket.LocalEndPoint;
        set => _localEndPoint = value;
    }

    public override EndPoint? RemoteEndPoint
    {
        get => _remoteEndPoint ?? Socket.RemoteEndPoint;
        set => _remoteEndPoint = value;
    }

    public override CancellationToken ConnectionClosed
    {
        get => _connectionClosedToken ?? _connectionClosed.Token;
        set => _connectionClosedToken = value;
    }

    public MemoryPool<byte> MemoryPool { get; }

    EventLoop IEventLoopFeature.Loop => Socket.Loop;

    /// <summary>
    /// The socket. It is disposed of when the connection ends, so that code that keeps it longer does not reach another connection.
    /// </summary>
    Socket IConnectionSocketFeature.Socket
    {
        get
        {
            try
            {
                return Socket.GetSocket();
            }
            catch (ObjectDisposedException)
            {
                // As on the Sockets transport, there is a socket, which is disposed of.
                return EndedSocket.Value;
            }
        }
    }

    bool IFeatureCollection.IsReadOnly => false;

    int IFeatureCollection.Revision => _featureRevision;

    object? IFeatureCollection.this[Type key]
    {
        get
        {
            ArgumentNullException.ThrowIfNull(key);
            return GetFeature(key);
        }

        set
        {
            ArgumentNullException.ThrowIfNull(key);
            SetFeature(key, value);
        }
    }

    TFeature? IFeatureCollection.Get<TFeature>()
        where TFeature : default => (TFeature?)GetFeature(typeof(TFeature));

    void IFeatureCollection.Set<TFeature>(TFeature? instance)
        where TFeature : default => SetFeature(typeof(TFeature), instance);

    public IEnumerator<KeyValuePair<Type, object>> GetEnumerator()
    {
        foreach (var own in OwnFeatures)
        {
            if (IndexOfSet(own) < 0)
            {
                yield return new(own, this);
            }
        }

        for (var i = 0; i < _setFeatureCount; i++)
        {
            if (_setFeatures[i] is { Value: { } value, Key: var key })
            {
                yield return new(key, value);
            }
        }
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    private object? GetFeature(Type key)
    {
        var index = IndexOfSet(key);
        return index >= 0 ? _setFeatures[index].Value : IsOwn(key) ? this : null;
    }

    private void SetFeature(Type key, object? instance)
    {
        _featureRevision++;
        var index = IndexOfSet(key);
        if (index < 0)
        {
            index = _setFeatureCount;
            if (index == _setFeatures.Length)
            {
                Array.Resize(ref _setFeatures, index == 0 ? 4 : index * 2);
            }

            _setFeatureCount++;
        }

        // A feature that was set to null stays in the list, because it hides an own one.
        _setFeatures[index] = new(key, instance);
    }

    private int IndexOfSet(Type key)
    {
        for (var i = 0; i < _setFeatureCount; i++)
        {
            if (_setFeatures[i].Key == key)
            {
                return i;
            }
        }

        return -1;
    }

    /// <summary>
    /// Whether the connection itself has the feature. Each of these comparisons is one instruction, and Kestrel asks about twenty times per
    /// connection.
    /// </summary>
    private static bool IsOwn(Type key) =>
        key == typeof(IConnectionIdFeature)
        || key == typeof(IConnectionTransportFeature)
        || key == typeof(IConnectionItemsFeature)
        || key == typeof(IMemoryPoolFeature)
        || key == typeof(IConnectionLifetimeFeature)
        || key == typeof(IConnectionEndPointFeature)
        || key == typeof(IConnectionSocketFeature)
        || key == typeof(IEventLoopFeature);
}
