using System.Net;
using System.Net.Sockets;
using BenchmarkDotNet.Attributes;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Benchmarks;

/// <summary>What a connection of the transport costs, seen from a client on a blocking socket over loopback.</summary>
[MemoryDiagnoser]
public class ConnectionBenchmarks
{
    private readonly byte[] _buffer = new byte[16 * 1024];
    private ServiceProvider _services = null!;
    private IConnectionListener _listener = null!;
    private Task _accepting = null!;
    private Socket _client = null!;

    [Params(LoopScheduling.Inline, LoopScheduling.ThreadPool)]
    public LoopScheduling Scheduling { get; set; }

    [GlobalSetup]
    public async Task StartAsync()
    {
        _services = new ServiceCollection().AddLogging()
            .AddEvioTransport(options =>
            {
                options.LoopCount = 1;
                options.Scheduling = Scheduling;
            })
            .BuildServiceProvider();
        _listener = await _services.GetRequiredService<IConnectionListenerFactory>().BindAsync(new IPEndPoint(IPAddress.Loopback, 0));
        _accepting = AcceptAsync();
        _client = Connect();
    }

    [GlobalCleanup]
    public async Task StopAsync()
    {
        _client.Dispose();
        await _listener.UnbindAsync();
        await _accepting;
        await _listener.DisposeAsync();
        await _services.DisposeAsync();
    }

    /// <summary>A receive, an echo by reader and writer, a send.</summary>
    [Benchmark]
    [Arguments(64)]
    [Arguments(16 * 1024)]
    public void RoundTrip(int size) => Exchange(_client, size);

    /// <summary>Connect, accept, one round trip, close.</summary>
    [Benchmark]
    public void ConnectAndClose()
    {
        using var client = Connect();
        Exchange(client, 64);

        // A reset, so that no port is left in TIME_WAIT.
        client.LingerState = new LingerOption(enable: true, seconds: 0);
    }

    private Socket Connect()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        socket.Connect(_listener.EndPoint);
        return socket;
    }

    private void Exchange(Socket client, int size)
    {
        client.Send(_buffer.AsSpan(0, size));
        for (var left = size; left > 0;)
        {
            var received = client.Receive(_buffer.AsSpan(0, left));
            left -= received > 0 ? received : throw new InvalidOperationException("The transport closed the connection.");
        }
    }

    private async Task AcceptAsync()
    {
        var open = new List<Task>();
        while (await _listener.AcceptAsync() is { } connection)
        {
            open.RemoveAll(static echo => echo.IsCompletedSuccessfully);
            open.Add(EchoAsync(connection));
        }

        await Task.WhenAll(open);
    }

    private static async Task EchoAsync(ConnectionContext connection)
    {
        await using var owned = connection;
        var (input, output) = (connection.Transport.Input, connection.Transport.Output);
        try
        {
            while (true)
            {
                var read = await input.ReadAsync();
                foreach (var segment in read.Buffer)
                {
                    await output.WriteAsync(segment);
                }

                input.AdvanceTo(read.Buffer.End);
                if (read.IsCompleted)
                {
                    return;
                }
            }
        }
        catch (ConnectionResetException)
        {
            // How ConnectAndClose ends its connections.
        }
    }
}
