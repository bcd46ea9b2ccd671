using System.CommandLine;
using Evio.Bench;
using Evio.Soak;

if (args is [CallbackHost.Argument, .. var arguments])
{
    return await CallbackHost.RunAsync(arguments);
}

var minutes = new Argument<double>("MINUTES") { Description = "How long, from the first request to the last." };
minutes.Validators.Add(static result =>
{
    if (!double.TryParse(result.Tokens[0].Value, out var number) || number is not (>= 0.5 and <= 10_000))
    {
        result.AddError("MINUTES must be a number from 0.5 to 10000.");
    }
});
var seed = new Option<int?>("--seed") { Description = "Makes the clients do the same things again. Default: a random one, which is printed." };
var calm = new Option<bool>("--calm") { Description = "Leaves out the servers' listeners, loggers and callbacks that throw." };
var root = new RootCommand(
    "Mixes verified traffic and faults against the sample, in all scheduling modes at once, and a server of hostile callbacks, and looks for losses and leaks.")
{
    minutes, seed, calm,
};
root.SetAction(async (options, cancellation) =>
{
    try
    {
        return await Run.StartAsync(
            TimeSpan.FromMinutes(options.GetValue(minutes)), options.GetValue(seed) ?? Random.Shared.Next(), options.GetValue(calm), cancellation);
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
