using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.RegularExpressions;

namespace Evio.Bench;

/// <summary>A variant as a running process on the server's processor.</summary>
internal sealed partial class Server : IAsyncDisposable
{
    private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(60);

    private readonly Child _process;

    private Server(Variant variant, int port, Child process)
    {
        Variant = variant;
        Port = port;
        _process = process;
    }

    public Variant Variant { get; }

    public int Port { get; }

    public Child Process => _process;

    public static async Task<Server> StartAsync(Variant variant, ServerPort port, Workshop workshop, int processor, CancellationToken cancellation)
    {
        var number = FreePort();
        string[] arguments = variant.IsSample
            ? ["--transport", variant.Transport!, "--scheduling", variant.Scheduling, "--loops", "1", .. SampleAddress(port, number)]
            : [EpollServerSwitch(port), $"{number}"];
        var start = Child.Pinned(processor, variant.IsSample ? workshop.Sample : workshop.EpollServer, arguments);

        // As in any benchmark of a server: otherwise the host makes an activity and a log scope of each request, on whatever transport.
        start.Environment["Logging__LogLevel__Microsoft.AspNetCore.Hosting.Diagnostics"] = "None";

        const string inlineCompletions = "DOTNET_SYSTEM_NET_SOCKETS_INLINE_COMPLETIONS";
        start.Environment.Remove(inlineCompletions);
        if (variant == Variant.SocketsInline)
        {
            start.Environment[inlineCompletions] = "1";
        }

        var server = new Server(variant, number, Child.Start(start));
        try
        {
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(StartTimeout);
            await server._process.WaitForOutputAsync(variant.IsSample ? "Application started." : "serving", limit.Token);
            return server;
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            await server.DisposeAsync();
            throw new BenchException($"{variant.Name} did not start within {StartTimeout.TotalSeconds} s:\n{server._process.Output}");
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>The bytes that a GET is answered with, its date left out.</summary>
    public async Task<string> ProbeAsync(string path, CancellationToken cancellation)
    {
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, Port, cancellation);
        var stream = client.GetStream();
        await stream.WriteAsync(Encoding.ASCII.GetBytes($"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), cancellation);

        // All probed answers are small and come in one piece; one that does not is seen as different.
        var buffer = new byte[64 * 1024];
        var received = await stream.ReadAsync(buffer, cancellation);
        return Date().Replace(Encoding.Latin1.GetString(buffer, 0, received), "Date: *");
    }

    public ValueTask DisposeAsync() => _process.DisposeAsync();

    private static string[] SampleAddress(ServerPort port, int number)
    {
        // Kestrel always listens on something; where the scenario is not about that, on a port of the system's choice.
        string[] aside = ["--urls", "http://127.0.0.1:0"];
        return port switch
        {
            ServerPort.Http => ["--urls", $"http://127.0.0.1:{number}"],
            ServerPort.Https => [.. aside, "--https-port", $"{number}"],
            ServerPort.H2c => [.. aside, "--h2c-port", $"{number}"],
            ServerPort.Raw => [.. aside, "--raw-port", $"{number}"],
            ServerPort.NativeEcho => [.. aside, "--echo-port", $"{number}"],
            ServerPort.NativeHttp => [.. aside, "--native-http-port", $"{number}"],
            _ => [.. aside, "--udp-echo-port", $"{number}"],
        };
    }

    private static string EpollServerSwitch(ServerPort port) => port switch
    {
        ServerPort.Http => "--http",
        ServerPort.NativeHttp => "--native-http",
        ServerPort.NativeEcho => "--echo",
        ServerPort.UdpEcho => "--udp-echo",
        _ => throw new ArgumentOutOfRangeException(nameof(port), port, "The server in C does not speak it."),
    };

    /// <summary>A port that is free for TCP and UDP now. Nobody keeps it, but the kernel does not give it out again soon either.</summary>
    private static int FreePort()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    [GeneratedRegex("Date: [^\r]*")]
    private static partial Regex Date();
}
