namespace Evio.Bench;

internal static class Statistics
{
    /// <exception cref="ArgumentException">There are no values.</exception>
    public static double Median(IReadOnlyCollection<double> values)
    {
        if (values.Count == 0)
        {
            throw new ArgumentException("The median of nothing is not defined.", nameof(values));
        }

        double[] sorted = [.. values];
        Array.Sort(sorted);
        var middle = sorted.Length / 2;
        return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    /// <summary>
    /// The median of the ratios within each pair. Not the ratio of the medians: what disturbs the machine for a while disturbs both sides of a pair.
    /// </summary>
    public static Ratio? PairedRatio(IReadOnlyList<double> values, IReadOnlyList<double> baseline)
    {
        if (values.Count != baseline.Count)
        {
            throw new ArgumentException($"{values.Count} values cannot be paired with {baseline.Count}.", nameof(values));
        }

        double[] ratios = [.. values.Zip(baseline).Where(static pair => pair.Second > 0).Select(static pair => pair.First / pair.Second)];
        return ratios.Length == 0 ? null : new Ratio(Median(ratios), ratios.Min(), ratios.Max());
    }

    /// <summary>The nearest-rank percentile.</summary>
    /// <exception cref="ArgumentException">There are no values.</exception>
    public static double Percentile(double[] sorted, double percent) =>
        sorted.Length == 0
            ? throw new ArgumentException("A percentile of nothing is not defined.", nameof(sorted))
            : sorted[Math.Clamp((int)Math.Ceiling(percent / 100 * sorted.Length) - 1, 0, sorted.Length - 1)];
}

/// <summary>A ratio and how far it went apart from pair to pair.</summary>
internal sealed record Ratio(double Median, double Min, double Max);
