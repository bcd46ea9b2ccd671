using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace Evio.Transport.Native.Tests.Support;

/// <summary>A listener whose connections are started and recorded, and the clients that a test connects to it.</summary>
internal sealed class Server : IAsyncDisposable
{
    private readonly BlockingCollection<RecordingHandler> _accepted = [];
    private readonly ConcurrentBag<Socket> _clients = [];
    private int _acceptedCount;
    private StreamListener? _listener;

    internal StreamListener Listener => _listener!;

    internal EndPoint EndPoint => Listener.LocalEndPoint;

    internal int AcceptedCount => Volatile.Read(ref _acceptedCount);

    internal Func<StreamSocket, RecordingHandler> CreateHandler { get; init; } = static socket => new RecordingHandler(socket);

    internal static Task<Server> StartAsync(TestGroup group, EndPoint? endPoint = null, StreamListenerOptions? options = null) =>
        new Server().ListenAsync(group, endPoint, options);

    internal static Task<Server> StartAsync(TestGroup group, Func<StreamSocket, RecordingHandler> createHandler) =>
        new Server { CreateHandler = createHandler }.ListenAsync(group);

    internal async Task<Server> ListenAsync(TestGroup group, EndPoint? endPoint = null, StreamListenerOptions? options = null)
    {
        _listener = await group.ListenAsync(endPoint ?? Loopback, OnAccepted, options);
        return this;
    }

    internal async Task<Server> ListenOnDescriptorAsync(TestGroup group, int descriptor, bool ownsDescriptor)
    {
        _listener = await group.Group.ListenOnDescriptorAsync(descriptor, ownsDescriptor, OnAccepted).Within();
        return this;
    }

    internal static IPEndPoint Loopback => new(IPAddress.Loopback, 0);

    /// <summary>Connects a client; the listener may not have accepted it yet.</summary>
    internal Socket Connect()
    {
        var client = Dial(EndPoint);
        _clients.Add(client);
        return client;
    }

    /// <summary>Connects a client and waits for the server's side of it. One at a time.</summary>
    internal (Socket Client, RecordingHandler Handler) Open()
    {
        var client = Connect();
        return (client, NextAccepted());
    }

    internal RecordingHandler NextAccepted()
    {
        Assert.True(_accepted.TryTake(out var handler, Waiting.Limit), "No connection was accepted.");
        return handler;
    }

    /// <summary>A connected client with blocking calls that give up in the end.</summary>
    internal static Socket Dial(EndPoint endPoint)
    {
        var client = endPoint is UnixDomainSocketEndPoint
            ? new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
            : new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        client.ReceiveTimeout = client.SendTimeout = (int)Waiting.Limit.TotalMilliseconds;
        try
        {
            client.Connect(endPoint);
            return client;
        }
        catch
        {
            client.Dispose();
            throw;
        }
    }

    internal void OnAccepted(StreamSocket socket)
    {
        var handler = CreateHandler(socket);
        socket.Start(handler);
        Interlocked.Increment(ref _acceptedCount);
        _accepted.Add(handler, CancellationToken.None);
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var client in _clients)
        {
            client.Dispose();
        }

        await Listener.CloseAsync().Within();
        foreach (var handler in _accepted)
        {
            handler.Socket.Close();
        }

        _accepted.Dispose();
    }
}
