using System.Diagnostics;
using System.Globalization;
using Evio.Bench;
using Evio.Transport.Native;

namespace Evio.Soak;

/// <summary>A soak from start to end: warm-up, everybody leaves, the rest, everybody leaves; and the comparison of the two moments of quiet.</summary>
internal sealed class Run
{
    private const int ClientsPerServer = 4;

    private static readonly TimeSpan SampleInterval = TimeSpan.FromSeconds(0.5);
    private static readonly TimeSpan ReportInterval = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan LongestWarmUp = TimeSpan.FromMinutes(2);

    private readonly TimeSpan _duration;
    private readonly int _seed;
    private readonly IReadOnlyList<SoakServer> _servers;
    private readonly Progress _progress;
    private readonly Dictionary<SoakServer, List<long>> _memory = [];
    private readonly int[] _visits;

    private Run(TimeSpan duration, int seed, IReadOnlyList<SoakServer> servers)
    {
        _duration = duration;
        _seed = seed;
        _servers = servers;
        _progress = new Progress(duration.TotalSeconds);
        _visits = new int[servers.Count * ClientsPerServer];
    }

    /// <summary>How the sample spells all modes that there are.</summary>
    public static IReadOnlyList<string> Modes { get; } = [.. Enum.GetNames<LoopScheduling>().Select(static name => name.ToLowerInvariant())];

    /// <param name="duration">From the first request to the last.</param>
    /// <param name="seed">What the clients and the servers' own code do follows from it.</param>
    /// <param name="calm">Leaves out the listeners, loggers and callbacks that throw.</param>
    /// <param name="cancellation">Ends it early.</param>
    /// <returns>0 if nothing was lost and nothing leaked.</returns>
    public static async Task<int> StartAsync(TimeSpan duration, int seed, bool calm, CancellationToken cancellation)
    {
        if (!OperatingSystem.IsLinux())
        {
            throw new BenchException("The soak reads Linux's /proc.");
        }

        var workshop = Workshop.Find();
        await workshop.PrepareAsync([Application.Sample], withC: false, cancellation);
        var servers = new List<SoakServer>();
        try
        {
            foreach (var mode in Modes)
            {
                servers.Add(await SampleServer.StartAsync(workshop.Sample, mode, calm ? null : seed, cancellation));
            }

            servers.Add(await CallbackServer.StartAsync(seed, calm, cancellation));

            Console.Error.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{string.Join(", ", servers.Select(static server => server.Name))}; {duration.TotalMinutes} minutes, {ClientsPerServer} clients each, seed {seed}"));
            var report = await new Run(duration, seed, servers).RunAsync(cancellation);
            Console.Out.Write(report.Write());
            return report.IsClean ? 0 : 1;
        }
        finally
        {
            foreach (var server in servers)
            {
                await server.DisposeAsync();
            }
        }
    }

    private async Task<Report> RunAsync(CancellationToken cancellation)
    {
        // After as much warm-up as there may be, everything that the runtime makes once is there.
        var warmUp = TimeSpan.FromTicks(Math.Min(_duration.Ticks / 3, LongestWarmUp.Ticks));
        await GoAsync(warmUp, isWarmUp: true, cancellation);
        var before = await LookAsync(static (_, _) => true, cancellation);

        await GoAsync(_duration - warmUp, isWarmUp: false, cancellation);
        var after = await LookAsync((server, state) => Leaks.Between(before[server], state).Count == 0, cancellation);

        var results = new List<ServerResult>();
        foreach (var server in _servers)
        {
            var errors = server.Errors().ToList();
            try
            {
                await server.StopAsync(cancellation);
            }
            catch (Exception problem) when (problem is BenchException || (problem is OperationCanceledException && !cancellation.IsCancellationRequested))
            {
                errors.Add($"SIGTERM did not end it well: {problem.Message}");
            }

            results.Add(new ServerResult(server.Name, server.Tally, errors, before[server], after[server], Leaks.MemoryGrowth(_memory[server])));
        }

        _progress.Clear();
        return new Report(_seed, _duration, results);
    }

    /// <summary>Lets all clients do as they do for a time, and go.</summary>
    private async Task GoAsync(TimeSpan time, bool isWarmUp, CancellationToken cancellation)
    {
        using var enough = new CancellationTokenSource();
        var clients = new List<Task>();
        foreach (var (index, server) in _servers.Index())
        {
            for (var number = 0; number < ClientsPerServer; number++)
            {
                var client = (index * ClientsPerServer) + number;
                clients.Add(Task.Run(() => VisitAsync(server, client, enough.Token, cancellation), cancellation));
            }
        }

        var began = Stopwatch.GetTimestamp();
        var reported = began;
        while (Stopwatch.GetElapsedTime(began) < time)
        {
            await Task.Delay(SampleInterval, cancellation);
            if (!isWarmUp)
            {
                foreach (var server in _servers)
                {
                    _memory.TryAdd(server, []);
                    _memory[server].Add(server.ResidentMemory());
                }
            }

            if (Stopwatch.GetElapsedTime(reported) >= ReportInterval)
            {
                reported = Stopwatch.GetTimestamp();
                _progress.Report((isWarmUp ? "warm-up: " : "") + string.Join("; ", _servers.Select(Describe)));
            }
        }

        await enough.CancelAsync();
        await Task.WhenAll(clients);
    }

    private static string Describe(SoakServer server) => string.Create(
        CultureInfo.InvariantCulture,
        $"{server.Name}: {server.Tally.Requests} requests, {server.Tally.Failed} failed, {server.Tally.Faults} faults, " +
        $"{server.ResidentMemory() / 1048576} MiB");

    /// <summary>One client after the other, until it is enough.</summary>
    private async Task VisitAsync(SoakServer server, int client, CancellationToken enough, CancellationToken cancellation)
    {
        while (!enough.IsCancellationRequested)
        {
            // Each visit has a seed of its own, so that what it does does not depend on how many the machine got done before it.
            var random = new Random(HashCode(client, _visits[client]++));
            var kind = random.Next(server.Kinds.Count);
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(Visit.Limit);
            try
            {
                await server.VisitAsync(kind, random, limit.Token);
            }
            catch (Exception problem) when (!cancellation.IsCancellationRequested)
            {
                var what = problem is OperationCanceledException
                    ? $"hangs for {Visit.Limit.TotalSeconds} s"
                    : $"{problem.GetType().Name}: {problem.Message} {problem.InnerException?.Message}";
                server.Tally.Fail($"{server.Kinds[kind]} (client {client}, visit {_visits[client] - 1}): {what}");
            }
        }
    }

    /// <summary>The same in every process, which that of the framework is not.</summary>
    private int HashCode(int client, int visit) => unchecked((((_seed * 31) + client) * 1_000_003) + visit);

    /// <summary>How the servers are when everybody has left them; what takes its time to come back is waited for.</summary>
    private async Task<Dictionary<SoakServer, ServerState>> LookAsync(
        Func<SoakServer, ServerState, bool> isBack, CancellationToken cancellation)
    {
        var states = new Dictionary<SoakServer, ServerState>();
        var began = Stopwatch.GetTimestamp();
        foreach (var server in _servers)
        {
            ServerState state;
            do
            {
                await Task.Delay(SampleInterval, cancellation);
                state = await server.LookAsync(cancellation);
            }
            while ((state.Connections > 0 || !isBack(server, state)) && Stopwatch.GetElapsedTime(began) < Leaks.MaxWaitForProcessor);
            states[server] = state;
        }

        return states;
    }
}
