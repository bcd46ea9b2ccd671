using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Evio.Bench;

namespace Evio.Soak;

/// <summary>A server under soak: a process of its own, so that leaks and deaths are seen from outside.</summary>
/// <param name="name">What it is called in the report.</param>
/// <param name="process">The process.</param>
/// <param name="linesOfError">How many lines of its output belong to an error.</param>
internal abstract partial class SoakServer(string name, Child process, int linesOfError) : IAsyncDisposable
{
    private const int SIGTERM = 15;
    private const int LinesOfDeath = 100;

    private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(120);

    public string Name => name;

    public Tally Tally { get; } = new();

    /// <summary>The names of what clients do.</summary>
    public abstract IReadOnlyList<string> Kinds { get; }

    protected Child Process => process;

    /// <summary>Lets a client come, do what it does, and go.</summary>
    public abstract Task VisitAsync(int kind, Random random, CancellationToken cancellation);

    /// <summary>What the kernel and the server itself say of its state.</summary>
    public abstract Task<ServerState> LookAsync(CancellationToken cancellation);

    /// <exception cref="BenchException">The process has ended by itself.</exception>
    public long ResidentMemory()
    {
        try
        {
            return process.ResidentMemory();
        }
        catch (Exception exception) when (exception is IOException or InvalidOperationException)
        {
            throw new BenchException($"The server '{name}' has died:\n{string.Join('\n', process.Output.Trim().Split('\n').TakeLast(LinesOfDeath))}");
        }
    }

    /// <summary>What it has logged as an error.</summary>
    public IReadOnlyList<string> Errors()
    {
        var lines = process.Output.Split('\n');
        return
        [
            .. lines.Index()
                .Where(static line => line.Item.StartsWith("fail:", StringComparison.Ordinal) || line.Item.StartsWith("crit:", StringComparison.Ordinal) ||
                    line.Item.StartsWith("Unhandled exception", StringComparison.Ordinal))
                .Select(line => string.Join(' ', lines.Skip(line.Index).Take(linesOfError).Select(static text => text.Trim())))
                .Where(error => !IsExpected(error)),
        ];
    }

    /// <summary>Ends it as a service manager does.</summary>
    /// <exception cref="BenchException">It ended with another code than 0.</exception>
    public async Task StopAsync(CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(Visit.Limit);
        _ = SendSignal(process.Id, SIGTERM);
        await process.WaitAsync(limit.Token);
    }

    public virtual ValueTask DisposeAsync() => process.DisposeAsync();

    protected static ProcessStartInfo Describe(string program, IEnumerable<string> arguments) => new(program, arguments)
    {
        Environment =
        {
            // Small collections often, so that the resident memory follows what lives and not what the collector thinks it may use.
            ["DOTNET_GCgen0size"] = "0x400000",
            ["DOTNET_GCConserveMemory"] = "5",
        },
    };

    /// <summary>Waits until the process has said that it serves.</summary>
    protected async Task WaitForStartAsync(string text, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(StartTimeout);
        await process.WaitForOutputAsync(text, limit.Token);
    }

    /// <summary>Whether what it has logged as an error is as it is to be.</summary>
    protected virtual bool IsExpected(string error) => false;

    protected int CountDescriptors() => Directory.GetFiles($"/proc/{process.Id}/fd").Length;

    protected int CountThreads() => Directory.GetDirectories($"/proc/{process.Id}/task").Length;

    /// <summary>Its connections as the kernel has them, for whoever looks for one that is left.</summary>
    /// <param name="names">What is served at which ports.</param>
    protected IEnumerable<string> Sockets(Dictionary<int, string> names)
    {
        string[] states =
        [
            "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING",
        ];
        foreach (var line in File.ReadLines($"/proc/{process.Id}/net/tcp").Skip(1))
        {
            // sl local_address rem_address st tx_queue:rx_queue ...; an inode of 0 has no descriptor any more.
            var fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            var port = int.Parse(fields[1].AsSpan(fields[1].IndexOf(':') + 1), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            var state = states[int.Parse(fields[3], NumberStyles.HexNumber, CultureInfo.InvariantCulture)];
            if (names.TryGetValue(port, out var where) && state != "LISTEN" && fields[9] != "0")
            {
                yield return $"{where}, {state}, tx:rx {fields[4]}";
            }
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

    /// <summary>What the callback server counts; null for the others.</summary>
    public CallbackCounts? Callbacks { get; init; }

    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{Descriptors} descriptors, {Threads} threads, {Connections} connections, {ResidentMemory / 1048576.0:F1} MiB");
}
