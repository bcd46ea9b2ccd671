using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text.Json;
using Evio.Bench;

namespace Evio.Soak;

/// <summary>The sample in one scheduling mode, as a process of its own, with all that it can serve.</summary>
internal sealed partial class SampleServer : IAsyncDisposable
{
    private const int SIGTERM = 15;
    private const int Loops = 2;

    private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(120);

    private readonly Child _process;

    private SampleServer(string mode, Child process, int[] ports)
    {
        Mode = mode;
        _process = process;
        (Http, Https, H2c, Raw, Echo, NativeHttp, Redis, Udp) = (ports[0], ports[1], ports[2], ports[3], ports[4], ports[5], ports[6], ports[7]);
    }

    public string Mode { get; }

    public int Http { get; }

    public int Https { get; }

    public int H2c { get; }

    public int Raw { get; }

    public int Echo { get; }

    public int NativeHttp { get; }

    public int Redis { get; }

    public int Udp { get; }

    public Tally Tally { get; } = new();

    public static async Task<SampleServer> StartAsync(string program, string mode, CancellationToken cancellation)
    {
        var ports = FreePorts(8);
        string[] switches = ["--https-port", "--h2c-port", "--raw-port", "--echo-port", "--native-http-port", "--redis-port", "--udp-echo-port"];
        var start = new ProcessStartInfo(
            program,
            [
                "--transport", "evio", "--scheduling", mode, "--loops", $"{Loops}", "--urls", $"http://127.0.0.1:{ports[0]}",
                .. switches.Zip(ports.Skip(1)).SelectMany(static pair => new[] { pair.First, $"{pair.Second}" }),
            ]);

        // Small collections often, so that the resident memory follows what lives and not what the collector thinks it may use.
        start.Environment["DOTNET_GCgen0size"] = "0x400000";
        start.Environment["DOTNET_GCConserveMemory"] = "5";
        var server = new SampleServer(mode, Child.Start(start), ports);
        try
        {
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(StartTimeout);
            await server._process.WaitForOutputAsync("Application started.", limit.Token);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    public long ResidentMemory() => _process.ResidentMemory();

    /// <summary>What the kernel and the server itself say of its state.</summary>
    public async Task<ServerState> LookAsync(CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(Visit.Limit);
        using var wire = await Wire.ConnectAsync(Http, limit.Token);
        await wire.SendAsync("GET /info HTTP/1.1\r\nHost: soak\r\n\r\n"u8.ToArray(), limit.Token);
        var reply = await wire.ReadReplyAsync(limit.Token);
        using var info = JsonDocument.Parse(reply.Body);
        var connections = info.RootElement.GetProperty("loops").EnumerateArray().Sum(static loop => loop.GetProperty("connections").GetInt32());

        // This one is among both.
        return new ServerState(
            Directory.GetFiles($"/proc/{_process.Id}/fd").Length - 1,
            Directory.GetDirectories($"/proc/{_process.Id}/task").Length,
            connections - 1,
            ResidentMemory())
        {
            Sockets = Sockets().ToList(),
        };
    }

    /// <summary>Its connections as the kernel has them, for whoever looks for one that is left.</summary>
    private IEnumerable<string> Sockets()
    {
        Dictionary<int, string> names = new()
        {
            [Http] = "http",
            [Https] = "https",
            [H2c] = "h2c",
            [Raw] = "raw echo",
            [Echo] = "native echo",
            [NativeHttp] = "native http",
            [Redis] = "redis",
        };
        string[] states =
        [
            "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING",
        ];
        foreach (var line in File.ReadLines($"/proc/{_process.Id}/net/tcp").Skip(1))
        {
            // sl local_address rem_address st tx_queue:rx_queue ...; an inode of 0 has no descriptor any more.
            var fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            var port = int.Parse(fields[1].AsSpan(fields[1].IndexOf(':') + 1), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            var state = states[int.Parse(fields[3], NumberStyles.HexNumber, CultureInfo.InvariantCulture)];
            if (names.TryGetValue(port, out var name) && state != "LISTEN" && fields[9] != "0")
            {
                yield return $"{name}, {state}, tx:rx {fields[4]}";
            }
        }
    }

    /// <summary>What it has logged as an error.</summary>
    public IReadOnlyList<string> Errors()
    {
        var lines = _process.Output.Split('\n');
        return
        [
            .. lines.Index()
                .Where(static line => line.Item.StartsWith("fail:", StringComparison.Ordinal) || line.Item.StartsWith("crit:", StringComparison.Ordinal) ||
                    line.Item.StartsWith("Unhandled exception", StringComparison.Ordinal))
                .Select(line => string.Join(' ', lines.Skip(line.Index).Take(4).Select(static text => text.Trim()))),
        ];
    }

    /// <summary>Ends it as a service manager does.</summary>
    /// <exception cref="BenchException">It ended with another code than 0.</exception>
    public async Task StopAsync(CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(Visit.Limit);
        _ = SendSignal(_process.Id, SIGTERM);
        await _process.WaitAsync(limit.Token);
    }

    public ValueTask DisposeAsync() => _process.DisposeAsync();

    /// <summary>Ports that are free for TCP and UDP now. Nobody keeps them, but the kernel does not give them out again soon either.</summary>
    private static int[] FreePorts(int count)
    {
        var sockets = new List<Socket>();
        try
        {
            for (var i = 0; i < count; i++)
            {
                sockets.Add(new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
                sockets[i].Bind(new IPEndPoint(IPAddress.Loopback, 0));
            }

            return [.. sockets.Select(static socket => ((IPEndPoint)socket.LocalEndPoint!).Port)];
        }
        finally
        {
            sockets.ForEach(static socket => socket.Dispose());
        }
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int SendSignal(int process, int signal);
}

/// <summary>What must be back where it was when all clients have gone.</summary>
internal sealed record ServerState(int Descriptors, int Threads, int Connections, long ResidentMemory)
{
    /// <summary>The connections, with the one that asked, in words.</summary>
    public IReadOnlyList<string> Sockets { get; init; } = [];

    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{Descriptors} descriptors, {Threads} threads, {Connections} connections, {ResidentMemory / 1048576.0:F1} MiB");
}
