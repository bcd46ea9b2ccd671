using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Testing;

/// <summary>One accepted connection and the plain socket at its other end.</summary>
internal sealed class ConnectedPair : IAsyncDisposable
{
    private readonly TransportInstance? _ownTransport;
    private readonly IConnectionListener _listener;

    private ConnectedPair(TransportInstance? ownTransport, IConnectionListener listener, ConnectionContext connection, Socket client)
    {
        _ownTransport = ownTransport;
        _listener = listener;
        Connection = connection;
        Client = client;
    }

    public ConnectionContext Connection { get; }

    public Socket Client { get; }

    public PipeReader Input => Connection.Transport.Input;

    public PipeWriter Output => Connection.Transport.Output;

    /// <summary>A pair over a transport of its own.</summary>
    public static async Task<ConnectedPair> CreateAsync(
        TransportKind kind,
        TransportSettings? settings = null,
        EndPoint? endPoint = null,
        Action<Socket>? configureClient = null,
        Action<IServiceCollection>? configureServices = null)
    {
        var transport = TransportInstance.Create(kind, settings, configureServices);
        var listener = await transport.BindAsync(endPoint);
        return await ConnectAsync(transport, listener, listener.EndPoint, configureClient);
    }

    /// <summary>A pair whose client takes little before it reads, so that the server's output backs up early.</summary>
    public static Task<ConnectedPair> WithSlowClientAsync(TransportKind kind, TransportSettings? settings = null) =>
        CreateAsync(kind, settings, configureClient: MakeSlow);

    /// <summary>Leaves <paramref name="client"/> room for little that it has not read.</summary>
    public static void MakeSlow(Socket client) => client.ReceiveBufferSize = 32 * 1024;

    /// <summary>A pair through <paramref name="listener"/>, which stays the caller's.</summary>
    public static Task<ConnectedPair> ThroughAsync(
        IConnectionListener listener, EndPoint? endPoint = null, Action<Socket>? configureClient = null) =>
        ConnectAsync(ownTransport: null, listener, endPoint ?? listener.EndPoint, configureClient);

    /// <summary>Another pair through the same listener. Dispose it first: the listener and the transport stay this pair's.</summary>
    public Task<ConnectedPair> ConnectAnotherAsync() => ThroughAsync(_listener);

    /// <summary>Sends bytes from the client and back through the connection, which must have nothing else under way.</summary>
    public async Task AssertEchoesAsync(int count = 1000)
    {
        var sent = TestData.Bytes(count);
        var receive = Client.ReceiveExactlyAsync(count);
        await Client.SendAllAsync(sent).OrTimeout();
        var result = await Input.ReadAtLeastAsync(count).OrTimeout();
        foreach (var segment in result.Buffer)
        {
            await Output.WriteAsync(segment).OrTimeout();
        }

        Input.AdvanceTo(result.Buffer.End);
        TestData.AssertSame(sent, await receive.OrTimeout());
    }

    /// <summary>Ends both sides and what is the pair's own beneath them.</summary>
    /// <remarks>The client goes first: the server may still be waiting to drain to it.</remarks>
    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await Connection.DisposeAsync().OrTimeout();
        if (_ownTransport is not null)
        {
            await _ownTransport.DisposeAsync();
        }
    }

    private static async Task<ConnectedPair> ConnectAsync(
        TransportInstance? ownTransport, IConnectionListener listener, EndPoint endPoint, Action<Socket>? configureClient)
    {
        var accept = listener.AcceptAsync().AsTask();
        var client = await SocketExtensions.ConnectAsync(endPoint, configureClient);
        var connection = await accept.OrTimeout();
        Assert.NotNull(connection);
        return new ConnectedPair(ownTransport, listener, connection, client);
    }
}
