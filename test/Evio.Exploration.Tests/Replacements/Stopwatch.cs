using Exploration;

// In its own namespace, so that the product's using directives are not in vain.
namespace System.Diagnostics;

/// <summary>The execution's time.</summary>
internal static class Stopwatch
{
    internal const long Frequency = TimeSpan.TicksPerSecond;

    internal static long GetTimestamp() => Execution.Current.Now;

    internal static TimeSpan GetElapsedTime(long start, long end) => TimeSpan.FromTicks(end - start);

    internal static TimeSpan GetElapsedTime(long start) => TimeSpan.FromTicks(GetTimestamp() - start);
}
