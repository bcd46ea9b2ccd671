namespace Evio.Soak;

/// <summary>Whether something grows, told from samples that jump up and down.</summary>
internal static class Trend
{
    /// <summary>
    /// How much a value has grown from the first sample to the last: the median of the slopes between all pairs (Theil and Sen) of the lows of equal
    /// stretches. A garbage-collected heap goes up between collections, so its lows are what lives; the median does not mind a few odd ones.
    /// </summary>
    /// <param name="samples">At least one for each stretch, at equal intervals.</param>
    /// <param name="stretches">At least two.</param>
    /// <exception cref="ArgumentException">There are too few samples, or stretches.</exception>
    public static double Growth(IReadOnlyList<long> samples, int stretches)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(stretches, 2);
        if (samples.Count < stretches)
        {
            throw new ArgumentException($"{samples.Count} samples do not make {stretches} stretches.", nameof(samples));
        }

        var lows = new double[stretches];
        for (var i = 0; i < stretches; i++)
        {
            var (from, to) = ((int)((long)samples.Count * i / stretches), (int)((long)samples.Count * (i + 1) / stretches));
            lows[i] = Enumerable.Range(from, to - from).Min(index => samples[index]);
        }

        var slopes = new List<double>();
        for (var i = 0; i < stretches; i++)
        {
            for (var j = i + 1; j < stretches; j++)
            {
                slopes.Add((lows[j] - lows[i]) / (j - i));
            }
        }

        return Bench.Statistics.Median(slopes) * (stretches - 1);
    }
}
