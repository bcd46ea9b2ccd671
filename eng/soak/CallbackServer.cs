using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Evio.Bench;

namespace Evio.Soak;

/// <summary><see cref="CallbackHost"/>, seen from outside.</summary>
internal sealed class CallbackServer : SoakServer
{
    private readonly DirectoryInfo _directory;
    private int[] _ports = [];
    private int _looks;

    private CallbackServer(DirectoryInfo directory, Child process)
        : base("callbacks, adaptive", process, linesOfError: 1) => _directory = directory;

    public override IReadOnlyList<string> Kinds { get; } = [.. CallbackVisits.Kinds.Select(static kind => kind.Name)];

    public static async Task<CallbackServer> StartAsync(int seed, bool calm, CancellationToken cancellation)
    {
        var directory = Directory.CreateTempSubdirectory("evio-");
        var start = Describe(
            Path.ChangeExtension(typeof(CallbackServer).Assembly.Location, null),
            [CallbackHost.Argument, seed.ToString(CultureInfo.InvariantCulture), PathIn(directory), .. calm ? ["calm"] : Array.Empty<string>()]);
        var server = new CallbackServer(directory, Child.Start(start));
        try
        {
            await server.WaitForStartAsync(CallbackHost.Started, cancellation);
            server._ports = [.. (await server.ReadAsync(CallbackHost.Started, cancellation)).Split(' ').Select(static port => int.Parse(port, CultureInfo.InvariantCulture))];
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>Where one of its addresses is.</summary>
    public EndPoint EndPointOf(int address) =>
        address == CallbackHost.Unix ? new UnixDomainSocketEndPoint(PathIn(_directory)) : new IPEndPoint(IPAddress.Loopback, _ports[address]);

    public override Task VisitAsync(int kind, Random random, CancellationToken cancellation) =>
        CallbackVisits.Kinds[kind].DoAsync(new CallbackVisit(this, random, cancellation));

    public override async Task<ServerState> LookAsync(CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(Visit.Limit);
        var number = _looks++;
        await Process.Input.WriteLineAsync($"{number}".AsMemory(), limit.Token);
        await Process.Input.FlushAsync(limit.Token);
        var answer = await ReadAsync($"{CallbackHost.State}{number} ", limit.Token);
        var state = JsonSerializer.Deserialize<CallbackState>(answer)!;
        return new ServerState(CountDescriptors(), CountThreads(), state.Connections, ResidentMemory())
        {
            Callbacks = state.Counts,
            Sockets = Sockets(new()
            {
                [_ports[CallbackHost.Tcp]] = "tcp",
                [_ports[CallbackHost.Managed]] = "tcp-net",
                [_ports[CallbackHost.Refusing]] = "tcp, Opened throws",
            }).ToList(),
        };
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        _directory.Delete(recursive: true);
    }

    private static string PathIn(DirectoryInfo directory) => Path.Combine(directory.FullName, "s");

    /// <summary>The rest of the line that begins like this.</summary>
    private async Task<string> ReadAsync(string beginning, CancellationToken cancellation)
    {
        await Process.WaitForOutputAsync(beginning, cancellation);
        var output = Process.Output;
        var start = output.IndexOf(beginning, StringComparison.Ordinal) + beginning.Length;
        return output[start..output.IndexOf('\n', start)].Trim();
    }
}
