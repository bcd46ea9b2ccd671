using System.CommandLine;
using Evio.Bench;
using Evio.Soak;

var minutes = new Argument<double>("MINUTES") { Description = "How long, from the first request to the last." };
minutes.Validators.Add(static result =>
{
    if (!double.TryParse(result.Tokens[0].Value, out var number) || number is not (>= 0.5 and <= 10_000))
    {
        result.AddError("MINUTES must be a number from 0.5 to 10000.");
    }
});
var seed = new Option<int?>("--seed") { Description = "Makes the clients do the same things again. Default: a random one, which is printed." };
var root = new RootCommand("Mixes verified traffic and faults against the sample, in all scheduling modes at once, and looks for losses and leaks.")
{
    minutes, seed,
};
root.SetAction(async (arguments, cancellation) =>
{
    try
    {
        return await Run.StartAsync(
            TimeSpan.FromMinutes(arguments.GetValue(minutes)), arguments.GetValue(seed) ?? Random.Shared.Next(), cancellation);
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
