namespace Evio.Bench;

/// <summary>One variant in one pair.</summary>
/// <param name="ServerCpuSeconds">User and system time of the server while it was loaded.</param>
/// <param name="ServerBusy">The server's share of the time that passed: below 1 it had nothing to do.</param>
/// <param name="LoadBusy">The load generator's share: at 1 it is the load, not the server, that has no more to give.</param>
/// <param name="OthersBusy">What other processes took of the server's processor.</param>
/// <param name="PeakMemory">The largest resident memory while it was loaded, in bytes.</param>
/// <param name="MemoryPerConnection">What an idle connection added to the resident memory, in bytes.</param>
internal sealed record Measurement(
    LoadResult Load, double ServerCpuSeconds, double ServerBusy, double LoadBusy, double OthersBusy, long PeakMemory, double? MemoryPerConnection = null)
{
    public double RequestsPerCpuSecond => Load.Requests / ServerCpuSeconds;
}

/// <summary>All runs of a variant in a scenario. With a failure there are no figures.</summary>
internal sealed record VariantResult(Variant Variant, IReadOnlyList<Measurement> Pairs, string? Failure)
{
    public bool HasFigures => Failure is null && Pairs.Count > 0;

    public double[] Values(Func<Measurement, double> value) => [.. Pairs.Select(value)];

    public double Median(Func<Measurement, double> value) => Statistics.Median(Values(value));

    public Ratio? RatioTo(VariantResult? baseline, Func<Measurement, double> value) =>
        HasFigures && baseline is { HasFigures: true } ? Statistics.PairedRatio(Values(value), baseline.Values(value)) : null;
}

/// <param name="Skipped">Why the scenario was not run.</param>
internal sealed record ScenarioResult(Scenario Scenario, IReadOnlyList<VariantResult> Variants, string? Skipped = null, double? Rate = null)
{
    public bool HasFailed => Variants.Any(static variant => variant.Failure is not null);

    public VariantResult? Find(Variant variant) => Variants.FirstOrDefault(result => result.Variant == variant);

    /// <summary>What the ratios of this scenario refer to: the variant on System.Net.Sockets.</summary>
    public VariantResult? Baseline => Find(Variant.Sockets) ?? Find(Variant.NativeOnSockets);
}
