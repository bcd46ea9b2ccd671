namespace Evio.Bench;

/// <summary>What a load generator saw in one run.</summary>
/// <param name="Failed">Requests that did not get the answer they had to get.</param>
/// <param name="Failure">What went wrong, in the generator's words; null when nothing did.</param>
internal sealed record LoadResult(double Seconds, long Requests, long Failed, string? Failure, double P50Microseconds, double P99Microseconds)
{
    public double RequestsPerSecond => Requests / Seconds;
}

/// <summary>A load generator's output is not what it prints when a run comes to its end.</summary>
internal sealed class LoadOutputException(string message, string output)
    : Exception($"{message} Its output:\n{output.Trim()}");
