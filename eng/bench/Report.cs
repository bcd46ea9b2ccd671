namespace Evio.Bench;

/// <summary>Everything that a run found out.</summary>
internal sealed record Report(
    Machine Machine, string Command, RunOptions Options, (int Server, int Load) Processors, IReadOnlyList<ScenarioResult> Scenarios)
{
    /// <summary>From this share of the server's processor on, other processes spoil the figures.</summary>
    private const double Spoilt = 0.05;

    public double OthersBusy => Scenarios
        .SelectMany(static scenario => scenario.Variants)
        .Where(static variant => variant.HasFigures)
        .Select(static variant => variant.Median(static pair => pair.OthersBusy))
        .DefaultIfEmpty()
        .Max();

    /// <summary>Why the figures should not be trusted.</summary>
    public string? Warning => (Machine.IsBusy, OthersBusy > Spoilt) switch
    {
        (true, _) => $"The machine was busy at the start ({Machine.BusyFraction:P0} of its processors' time), and other processes took up to {OthersBusy:P0} of the server's processor: these figures show nothing.",
        (_, true) => $"Other processes took up to {OthersBusy:P0} of the server's processor: these figures show little.",
        _ => null,
    };
}
