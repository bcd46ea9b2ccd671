using System.Net;
using System.Net.Sockets;
using Evio.Transport.Testing;

namespace Evio.Transport.Faults.Tests;

/// <summary>A client that compares everything it gets back with what it sent.</summary>
internal sealed class EchoClient : IDisposable
{
    private int _messages;

    private EchoClient(Socket socket) => Socket = socket;

    internal Socket Socket { get; }

    internal int LocalPort => ((IPEndPoint)Socket.LocalEndPoint!).Port;

    /// <summary>A client whose port is known before it connects.</summary>
    internal static EchoClient Bind()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return new EchoClient(socket);
    }

    internal static async Task<EchoClient> ConnectAsync(int port)
    {
        var client = Bind();
        await client.ConnectToAsync(port);
        return client;
    }

    internal Task ConnectToAsync(int port) => Socket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port)).OrTimeout();

    /// <summary>Connects, perhaps to a server that ends the connection before this side knows of it.</summary>
    /// <returns>Whether it is connected.</returns>
    internal async Task<bool> TryConnectToAsync(int port)
    {
        try
        {
            await ConnectToAsync(port);
            return true;
        }
        catch (SocketException exception) when (exception.SocketErrorCode is SocketError.ConnectionReset)
        {
            return false;
        }
    }

    /// <summary>Receives until the connection ends, in order or by a reset.</summary>
    internal async Task<byte[]> ReceiveToAnyEndAsync()
    {
        try
        {
            return await Socket.ReceiveToEndAsync().OrTimeout();
        }
        catch (SocketException exception) when (exception.SocketErrorCode is SocketError.ConnectionReset)
        {
            return [];
        }
    }

    /// <summary>Sends a message and gets it back.</summary>
    internal async Task ExchangeAsync(int size) => Assert.True(await TryExchangeAsync(size), "The server ended the connection.");

    /// <summary>Sends a message and gets it back, or the first part of it and the end of the connection.</summary>
    /// <returns>Whether all came back.</returns>
    internal async Task<bool> TryExchangeAsync(int size)
    {
        var sent = TestData.Bytes(size, seed: (LocalPort * 1000) + _messages++);
        sent[0] = FaultServer.Echo;
        var sending = SendAsync(sent);
        var received = new byte[size];
        var count = 0;
        var ended = false;
        while (count < size && !ended)
        {
            try
            {
                var now = await Socket.ReceiveAsync(received.AsMemory(count)).OrTimeout();
                count += now;
                ended = now == 0;
            }
            catch (SocketException exception) when (exception.SocketErrorCode is SocketError.ConnectionReset)
            {
                ended = true;
            }
        }

        TestData.AssertSame(sent.AsMemory(0, count), received.AsMemory(0, count));
        if (ended)
        {
            // What is still to be sent has nobody to go to.
            Socket.Dispose();
        }

        await sending.OrTimeout();
        return !ended;
    }

    public void Dispose() => Socket.Dispose();

    private async Task SendAsync(byte[] bytes)
    {
        try
        {
            await Socket.SendAllAsync(bytes);
        }
        catch (SocketException exception) when (exception.SocketErrorCode is
            SocketError.ConnectionReset or SocketError.ConnectionAborted or SocketError.Shutdown or SocketError.OperationAborted)
        {
            // The receive tells.
        }
    }
}
