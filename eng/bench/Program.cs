using System.CommandLine;
using Evio.Bench;

var scenarios = new Option<string[]>("--scenario")
{
    Description = "Scenarios by name, separated by commas. Default: the quick ones.",
    CustomParser = static result => [.. result.Tokens.SelectMany(static token => token.Value.Split(',', StringSplitOptions.RemoveEmptyEntries))],
};
var transports = new Option<string[]>("--transports")
{
    Description = "Variants by name, separated by commas; evio stands for all on evio's loops. Default: all. Without sockets there are no ratios.",
    CustomParser = static result => [.. result.Tokens.SelectMany(static token => token.Value.Split(',', StringSplitOptions.RemoveEmptyEntries))],
};
var full = new Option<bool>("--full") { Description = "All scenarios, and longer measurements." };
var pairs = new Option<int>("--pairs") { Description = "How often each variant is measured.", DefaultValueFactory = static _ => 5 };
var duration = new Option<int?>("--duration") { Description = "Seconds of each measurement. Default: 2, and 3 with --full." };
var warmUp = new Option<int>("--warmup") { Description = "Seconds of load before the first measurement of each server.", DefaultValueFactory = static _ => 10 };
var logging = new Option<ServerLogging>("--server-logging")
{
    Description = "The log of the applications: as their appsettings.json has it, or none of any request.",
    DefaultValueFactory = static _ => ServerLogging.Shipped,
};
var docs = new Option<FileInfo>("--docs")
{
    Description = "A Markdown file that gets the results between its markers, and the chart beside it.",
};
docs.AcceptExistingOnly();
var list = new Option<bool>("--list") { Description = "Lists the scenarios and the variants, and does nothing else." };
foreach (var (option, min) in (ReadOnlySpan<(Option, int)>)[(pairs, 1), (duration, 1), (warmUp, 0)])
{
    option.Validators.Add(result =>
    {
        if (result.Tokens is [{ Value: var text }] && (!int.TryParse(text, out var number) || number < min || number > 3600))
        {
            result.AddError($"{option.Name} must be a whole number from {min} to 3600.");
        }
    });
}

var root = new RootCommand("Measures Kestrel on evio and on its own transport side by side. docs/benchmarks.md explains the figures.")
{
    scenarios, transports, full, pairs, duration, warmUp, logging, docs, list,
};
root.SetAction(async (arguments, cancellation) =>
{
    try
    {
        if (arguments.GetValue(list))
        {
            Bench.List(Console.Out);
            return 0;
        }

        var isFull = arguments.GetValue(full);
        return await Bench.RunAsync(
            Bench.Choose(arguments.GetValue(scenarios) ?? [], isFull),
            new RunOptions(
                arguments.GetValue(pairs),
                arguments.GetValue(duration) ?? (isFull ? 3 : 2),
                arguments.GetValue(warmUp),
                Bench.CheckVariants(arguments.GetValue(transports) ?? []),
                arguments.GetValue(logging)),
            arguments.GetValue(docs),
            string.Join(' ', ["eng/bench.sh", .. args]),
            cancellation);
    }
    catch (BenchException problem)
    {
        Console.Error.WriteLine(problem.Message);
        return 2;
    }
    catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
    {
        Console.Error.WriteLine("\nStopped.");
        return 130;
    }
});
return await root.Parse(args).InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = TimeSpan.FromSeconds(10) });
