using System.Text.Json;
using Evio.Bench;
using Evio.Transport.Testing;

namespace Evio.Soak;

/// <summary>The sample in one scheduling mode, with all that it can serve.</summary>
internal sealed class SampleServer : SoakServer
{
    private const int Loops = 2;

    private SampleServer(string mode, Child process, int[] ports)
        : base(mode, process, linesOfError: 4) =>
        (Http, Https, H2c, Raw, Echo, NativeHttp, Redis, Udp) = (ports[0], ports[1], ports[2], ports[3], ports[4], ports[5], ports[6], ports[7]);

    public int Http { get; }

    public int Https { get; }

    public int H2c { get; }

    public int Raw { get; }

    public int Echo { get; }

    public int NativeHttp { get; }

    public int Redis { get; }

    public int Udp { get; }

    public override IReadOnlyList<string> Kinds { get; } = [.. Visit.Kinds.Select(static kind => kind.Name)];

    /// <param name="program">The sample.</param>
    /// <param name="mode">Its scheduling.</param>
    /// <param name="hostility">The seed of what <see cref="HostileSample"/> does inside of it; null for nothing.</param>
    /// <param name="cancellation">Ends the attempt.</param>
    public static async Task<SampleServer> StartAsync(string program, string mode, int? hostility, CancellationToken cancellation)
    {
        var ports = FreePorts.Find(8);
        string[] switches = ["--https-port", "--h2c-port", "--raw-port", "--echo-port", "--native-http-port", "--redis-port", "--udp-echo-port"];
        var start = Describe(
            program,
            [
                "--transport", "evio", "--scheduling", mode, "--loops", $"{Loops}", "--urls", $"http://127.0.0.1:{ports[0]}",
                .. switches.Zip(ports.Skip(1)).SelectMany(static pair => new[] { pair.First, $"{pair.Second}" }),
            ]);
        if (hostility is { } seed)
        {
            HostileSample.Attach(start, seed);
        }

        var server = new SampleServer(mode, Child.Start(start), ports);
        try
        {
            await server.WaitForStartAsync("Application started.", cancellation);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    public override Task VisitAsync(int kind, Random random, CancellationToken cancellation) =>
        Visit.Kinds[kind].DoAsync(new Visit(this, random, cancellation));

    public override async Task<ServerState> LookAsync(CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(Visit.Limit);
        using var wire = await Wire.ConnectAsync(Http, limit.Token);
        await wire.SendAsync("GET /info HTTP/1.1\r\nHost: soak\r\n\r\n"u8.ToArray(), limit.Token);
        var reply = await wire.ReadReplyAsync(limit.Token);
        using var info = JsonDocument.Parse(reply.Body);
        var connections = info.RootElement.GetProperty("loops").EnumerateArray().Sum(static loop => loop.GetProperty("connections").GetInt32());

        // This one is among both.
        return new ServerState(CountDescriptors() - 1, CountThreads(), connections - 1, ResidentMemory())
        {
            Sockets = Sockets(new()
            {
                [Http] = "http",
                [Https] = "https",
                [H2c] = "h2c",
                [Raw] = "raw echo",
                [Echo] = "native echo",
                [NativeHttp] = "native http",
                [Redis] = "redis",
            }).ToList(),
        };
    }

    /// <summary>The transport may tell of a listener or a logger that has thrown, as long as nothing dies of it.</summary>
    protected override bool IsExpected(string error) =>
        error.StartsWith("fail: Evio.Transport", StringComparison.Ordinal) && error.Contains(MischiefException.Beginning, StringComparison.Ordinal);
}
