namespace Evio.Bench;

internal static class Bench
{
    private const double PublishSeconds = 25;

    public static void List(TextWriter output)
    {
        output.WriteLine("Scenarios (those with * run when none is named):");
        foreach (var scenario in Scenario.All)
        {
            output.WriteLine($"  {(scenario.IsQuick ? '*' : ' ')} {scenario.Name,-24} {scenario.Title}");
        }

        output.WriteLine("Variants:");
        foreach (var variant in Variant.All)
        {
            output.WriteLine($"    {variant.Name,-24} {variant.Description}");
        }
    }

    /// <exception cref="BenchException">There is no such scenario.</exception>
    public static IReadOnlyList<Scenario> Choose(IReadOnlyCollection<string> names, bool full)
    {
        if (names.FirstOrDefault(static name => Scenario.All.All(scenario => scenario.Name != name)) is { } unknown)
        {
            throw new BenchException($"There is no scenario '{unknown}'; --list names them all.");
        }

        return [.. Scenario.All.Where(scenario => names.Count > 0 ? names.Contains(scenario.Name) : full || scenario.IsQuick)];
    }

    /// <exception cref="BenchException">There is no such variant.</exception>
    public static IReadOnlyCollection<string> CheckVariants(IReadOnlyCollection<string> names) =>
        names.FirstOrDefault(static name => name != "evio" && Variant.All.All(variant => variant.Name != name)) is { } unknown
            ? throw new BenchException($"There is no variant '{unknown}'; --list names them all.")
            : names;

    /// <summary>0 when all that was measured went well.</summary>
    public static async Task<int> RunAsync(IReadOnlyList<Scenario> scenarios, RunOptions options, FileInfo? docs, string command, CancellationToken cancellation)
    {
        if (!OperatingSystem.IsLinux())
        {
            throw new BenchException("The harness reads Linux's /proc and pins processes with taskset.");
        }

        var missing = scenarios.SelectMany(static scenario => scenario.Tools).Append(Tool.Taskset).Append(Tool.Compiler)
            .Distinct().Where(static tool => !tool.IsInstalled).ToList();
        if (missing.Count > 0)
        {
            Console.Error.WriteLine(
                $"Missing: {string.Join(", ", missing.Select(static tool => tool.Command))}. " +
                $"On Debian or Ubuntu: apt-get install {string.Join(' ', missing.Select(static tool => tool.Package).Distinct())}");
        }

        if (!Tool.Taskset.IsInstalled)
        {
            throw new BenchException("Nothing can be measured without taskset.");
        }

        var workshop = Workshop.Find();
        var processors = Machine.ChooseProcessors();
        var machine = await Machine.DescribeAsync(cancellation);
        Console.Error.WriteLine(machine.Line);
        if (machine.IsBusy)
        {
            Console.Error.WriteLine($"Warning: the machine is busy ({machine.BusyFraction:P0}). Figures taken now show nothing.");
        }

        Scenario[] runnable = [.. scenarios.Where(static scenario => scenario.Obstacle is null)];
        Application[] applications = [.. runnable.Select(static scenario => scenario.Application).Distinct()];
        var progress = new Progress((PublishSeconds * applications.Length) + runnable.Sum(options.ExpectedSeconds));
        progress.Report("publishing the servers");
        await workshop.PrepareAsync(applications, Tool.Compiler.IsInstalled, cancellation);

        var runner = new Runner(workshop, options, processors, progress);
        var report = new Report(machine, command, options, processors, []);
        foreach (var scenario in scenarios)
        {
            var result = scenario.Obstacle is { } obstacle
                ? new ScenarioResult(scenario, [], obstacle)
                : await runner.RunAsync(scenario, cancellation);
            report = report with { Scenarios = [.. report.Scenarios, result] };

            // After each scenario, so that a run that is stopped leaves what it has.
            await WriteAsync("results.md", MarkdownReport.Write(report));
            await WriteAsync("results.json", JsonReport.Write(report));
            await WriteAsync("results.svg", SvgChart.Write(report));
        }

        if (docs is not null)
        {
            var document = await File.ReadAllTextAsync(docs.FullName, cancellation);
            await File.WriteAllTextAsync(docs.FullName, MarkdownReport.Insert(document, MarkdownReport.Write(report)), cancellation);
            await File.WriteAllTextAsync(Path.ChangeExtension(docs.FullName, ".svg"), SvgChart.Write(report), cancellation);
        }

        progress.Clear();
        Console.Out.Write(MarkdownReport.Write(report));
        foreach (var failed in report.Scenarios.SelectMany(static scenario => scenario.Variants.Select(variant => (scenario.Scenario.Name, variant)))
            .Where(static result => result.variant.Failure is not null))
        {
            Console.Error.WriteLine($"{failed.Name}, {failed.variant.Variant.Name} failed: {failed.variant.Failure}");
        }

        return report.Scenarios.Any(static scenario => scenario.HasFailed) ? 1 : 0;

        Task WriteAsync(string name, string text) => File.WriteAllTextAsync(Path.Combine(workshop.Output, name), text, cancellation);
    }
}
