using System.Diagnostics;

namespace Evio.Bench;

/// <param name="Pairs">How often each variant is measured.</param>
/// <param name="Duration">Seconds of each measurement.</param>
/// <param name="WarmUp">Seconds of load that each server gets before the first.</param>
/// <param name="Logging">What the applications log.</param>
internal sealed record RunOptions(
    int Pairs, int Duration, int WarmUp, IReadOnlyCollection<string> Transports, ServerLogging Logging = ServerLogging.Shipped)
{
    private const int StartSeconds = 1;
    private const double SecondsBetweenRuns = 0.3;
    private const int IdleSeconds = 4;

    /// <summary>How long code that is not compiled while it runs needs to get warm.</summary>
    private const int WarmUpOfC = 1;

    /// <summary>For connections that do nothing: code that is half compiled has the same memory per connection.</summary>
    public int WarmUpOfIdle => Math.Min(WarmUp, 3);

    public int WarmUpOf(Scenario scenario, Variant variant) => variant.IsApplication ? WarmUp * scenario.WarmUpFactor : Math.Min(WarmUp, WarmUpOfC);

    public double ExpectedSeconds(Scenario scenario) =>
        scenario.Variants.Where(variant => Variant.Matches(variant, Transports)).Sum(variant => scenario.IdleConnections is null
            ? StartSeconds + WarmUpOf(scenario, variant) + (Pairs * (Duration + SecondsBetweenRuns))
            : Pairs * (StartSeconds + WarmUpOfIdle + IdleSeconds));
}

/// <summary>What an application logs while it is measured.</summary>
internal enum ServerLogging
{
    /// <summary>What its appsettings.json says.</summary>
    Shipped,

    /// <summary>Nothing of a request.</summary>
    None,
}

/// <summary>Runs scenarios: one process per variant, and then each variant in turn, as often as there are pairs.</summary>
internal sealed class Runner(Workshop workshop, RunOptions options, (int Server, int Load) processors, Progress progress)
{
    private const int MaxShownAnswer = 2000;
    private const int RoundOfWarmUp = 2;

    public async Task<ScenarioResult> RunAsync(Scenario scenario, CancellationToken cancellation)
    {
        Contender[] contenders =
        [
            .. scenario.Variants
                .Where(variant => Variant.Matches(variant, options.Transports) && (variant.IsApplication || Tool.Compiler.IsInstalled))
                .Select(static variant => new Contender(variant)),
        ];
        double? rate = null;
        // What the handlers call, for all variants the same, and on the load's processor: it is no part of what is measured.
        await using var backend = scenario.CallsOut
            ? await Server.StartAsync(Variant.CEpoll, workshop.EpollServer, ServerPort.Http, [], processors.Load, cancellation)
            : null;
        await using var database = scenario.UsesDatabase ? await Database.StartAsync(processors.Load, cancellation) : null;
        IReadOnlyList<string> switches =
        [
            .. scenario.Switches,
            .. backend is null ? (string[])[] : ["--call-out", $"http://127.0.0.1:{backend.Port}/string"],
            .. database is null ? (string[])[] : ["--database", database.ConnectionString],
            .. options.Logging == ServerLogging.None ? Server.WithoutLog : [],
        ];
        try
        {
            if (scenario.IdleConnections is { } connections)
            {
                await InTurnAsync(scenario, contenders, (contender, _) => MeasureIdleAsync(scenario, connections, contender, switches, cancellation));
            }
            else
            {
                await PrepareAsync(scenario, contenders, switches, cancellation);
                var load = scenario.Load;
                if (scenario.RateOfBaseline is { } fraction)
                {
                    rate = await FindRateAsync(scenario, contenders, fraction, cancellation);
                    if (rate is null)
                    {
                        return new ScenarioResult(scenario, [.. contenders.Select(static contender => contender.Result)]);
                    }

                    load = load.AtRate(rate.Value);
                }

                await InTurnAsync(scenario, contenders, (_, server) => MeasureAsync(load, server!, options.Duration, cancellation));
            }
        }
        finally
        {
            foreach (var contender in contenders)
            {
                await contender.DisposeAsync();
            }
        }

        return new ScenarioResult(scenario, [.. contenders.Select(static contender => contender.Result)], Rate: rate);
    }

    private async Task InTurnAsync(Scenario scenario, Contender[] contenders, Func<Contender, Server?, Task<Measurement>> measure)
    {
        for (var pair = 0; pair < options.Pairs; pair++)
        {
            // Each time another one begins, so that none always follows the same one.
            for (var turn = 0; turn < contenders.Length; turn++)
            {
                var contender = contenders[(pair + turn) % contenders.Length];
                progress.Report($"{scenario.Name}, pair {pair + 1} of {options.Pairs}, {contender.Variant.Name}{contender.LastFigure}");
                await contender.TryAsync(async server => contender.Pairs.Add(await measure(contender, server)));
            }
        }
    }

    private async Task PrepareAsync(Scenario scenario, Contender[] contenders, IReadOnlyList<string> switches, CancellationToken cancellation)
    {
        string? answer = null;
        foreach (var contender in contenders)
        {
            progress.Report($"{scenario.Name}, warming up {contender.Variant.Name}");
            await contender.TryAsync(async _ =>
            {
                var server = contender.Server = await StartAsync(contender.Variant, scenario, switches, cancellation);
                if (scenario.Probe is { } probe)
                {
                    var other = await server.ProbeAsync(probe, cancellation);
                    answer ??= other;
                    if (other != answer)
                    {
                        throw new BenchException($"answers {probe.Path} otherwise than {contenders[0].Variant.Name}:\n{Shorten(other)}\ninstead of\n{Shorten(answer)}");
                    }
                }

                if (options.WarmUpOf(scenario, contender.Variant) is > 0 and var seconds)
                {
                    await WarmUpAsync(scenario.Load, server, seconds, cancellation);
                }
            });
        }
    }

    /// <summary>Loads it again and again, and lets its compiler, which has to share the processor with the load, catch up in between.</summary>
    private async Task WarmUpAsync(Load load, Server server, int seconds, CancellationToken cancellation)
    {
        for (var left = seconds; left > 0; left -= RoundOfWarmUp)
        {
            _ = await MeasureAsync(load, server, Math.Min(left, RoundOfWarmUp), cancellation);
            await server.Process.WaitUntilIdleAsync(cancellation);
        }
    }

    private Task<Server> StartAsync(Variant variant, Scenario scenario, IReadOnlyList<string> switches, CancellationToken cancellation) =>
        Server.StartAsync(variant, workshop.ProgramOf(scenario, variant), scenario.Port, switches, processors.Server, cancellation);

    private static string Shorten(string answer) => answer.Length <= MaxShownAnswer ? answer : answer[..MaxShownAnswer] + "...";

    /// <summary>The fraction of what the baseline, or else the first variant, manages when nothing holds the load back.</summary>
    private async Task<double?> FindRateAsync(Scenario scenario, Contender[] contenders, double fraction, CancellationToken cancellation)
    {
        var contender = contenders.FirstOrDefault(static contender => contender.Variant == Variant.Sockets) ?? contenders[0];
        double? rate = null;
        progress.Report($"{scenario.Name}, looking for the rate with {contender.Variant.Name}");
        await contender.TryAsync(async server =>
            rate = Math.Floor((await MeasureAsync(scenario.Load, server!, options.Duration, cancellation)).Load.RequestsPerSecond * fraction));
        return rate;
    }

    /// <summary>A process for each measurement: memory that was taken once is not always given back.</summary>
    private async Task<Measurement> MeasureIdleAsync(
        Scenario scenario, int connections, Contender contender, IReadOnlyList<string> switches, CancellationToken cancellation)
    {
        await using var server = await StartAsync(contender.Variant, scenario, switches, cancellation);
        if (options.WarmUpOfIdle > 0)
        {
            await MeasureAsync(scenario.Load, server, options.WarmUpOfIdle, cancellation);
        }

        var process = server.Process;
        var (memoryBefore, cpuBefore, started) = (process.ResidentMemory(), process.CpuSeconds(), Stopwatch.GetTimestamp());
        process.ResetPeakMemory();
        string[] arguments = ["idle", "--port", $"{server.Port}", "--connections", $"{connections}", .. ((OwnLoad)scenario.Load).Options];
        await using var child = Child.Start(Child.Pinned(processors.Load, workshop.LoadGenerator, arguments));
        await child.WaitForOutputAsync("open", cancellation);
        var memory = process.ResidentMemory();
        child.Input.Close();

        var result = Check(OwnLoad.Parse(await child.WaitAsync(cancellation)));
        var cpu = process.CpuSeconds() - cpuBefore;
        return new Measurement(
            result, cpu, cpu / Stopwatch.GetElapsedTime(started).TotalSeconds, LoadBusy: 0, OthersBusy: 0, process.PeakMemory(),
            (double)(memory - memoryBefore) / connections);
    }

    private static LoadResult Check(LoadResult result) =>
        result is { Failed: 0, Requests: > 0 }
            ? result
            : throw new BenchException($"{result.Failed} failed requests, {result.Requests} answered{(result.Failure is null ? "" : $": {result.Failure}")}");

    private async Task<Measurement> MeasureAsync(Load load, Server server, int seconds, CancellationToken cancellation)
    {
        var program = load is OwnLoad ? workshop.LoadGenerator : load.Tool.Command;
        var process = server.Process;
        process.ResetPeakMemory();

        var (cpuBefore, processorBefore, started) = (process.CpuSeconds(), ProcessorTime.Read(processors.Server), Stopwatch.GetTimestamp());
        await using var child = Child.Start(Child.Pinned(processors.Load, program, load.Arguments(server.Port, seconds, workshop.Output)));
        var loadBusy = WatchAsync(child, TimeSpan.FromSeconds(seconds), cancellation);
        var output = await child.WaitAsync(cancellation);
        var (cpu, elapsed) = (process.CpuSeconds() - cpuBefore, Stopwatch.GetElapsedTime(started).TotalSeconds);
        var processorBusy = ProcessorTime.Read(processors.Server).ProcessesSince(processorBefore);

        var result = Check(load.Parse(output, seconds, workshop.Output));
        var serverBusy = cpu / elapsed;
        return new Measurement(result, cpu, serverBusy, await loadBusy, Math.Max(0, processorBusy - serverBusy), process.PeakMemory());
    }

    /// <summary>The child's share of a processor in the middle of its run: neither while it connects, nor while it sums up.</summary>
    private static async Task<double> WatchAsync(Child child, TimeSpan duration, CancellationToken cancellation)
    {
        await Task.Delay(duration * 0.2, cancellation);
        var (cpuBefore, started) = (Cpu(), Stopwatch.GetTimestamp());
        await Task.Delay(duration * 0.6, cancellation);
        return (Cpu() - cpuBefore) / Stopwatch.GetElapsedTime(started).TotalSeconds;

        // A generator that fails ends early, and then its output is what counts.
        double Cpu() => child.TryReadCpu() ?? 0;
    }

    /// <summary>A variant on its way through a scenario. Its first failure takes it out.</summary>
    private sealed class Contender(Variant variant) : IAsyncDisposable
    {
        private string? _failure;

        public Variant Variant => variant;

        public Server? Server { get; set; }

        public List<Measurement> Pairs { get; } = [];

        public VariantResult Result => new(variant, Pairs, _failure);

        public string LastFigure => Pairs.Count == 0 ? "" : $" ({Pairs[^1].Load.RequestsPerSecond:N0} requests/s before)";

        public async Task TryAsync(Func<Server?, Task> step)
        {
            if (_failure is not null)
            {
                return;
            }

            try
            {
                await step(Server);
            }
            catch (Exception failure) when (failure is BenchException or LoadOutputException or IOException or System.Net.Sockets.SocketException)
            {
                _failure = failure.Message;
            }
        }

        public ValueTask DisposeAsync() => Server?.DisposeAsync() ?? ValueTask.CompletedTask;
    }
}
