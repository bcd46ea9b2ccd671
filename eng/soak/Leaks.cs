using System.Globalization;

namespace Evio.Soak;

/// <summary>What counts as a leak.</summary>
internal static class Leaks
{
    /// <summary>The thread pool lets go of a thread after 20 s, and Kestrel of a connection that says nothing more within its time-outs.</summary>
    public static readonly TimeSpan MaxWaitForProcessor = TimeSpan.FromSeconds(60);

    /// <summary>The runtime's own, which come and go: timers, the pool's gate, the compiler.</summary>
    private const int ThreadsThatComeAndGo = 3;

    private const int Stretches = 8;
    private const double LeastGrowth = 12 * 1024 * 1024;
    private const double GrowthFraction = 0.1;

    /// <summary>What is not back, in words.</summary>
    public static IReadOnlyList<string> Between(ServerState before, ServerState after)
    {
        var leaks = new List<string>();
        Add("descriptors", before.Descriptors, after.Descriptors, 0);
        Add("connections", 0, after.Connections, 0);
        Add("threads", before.Threads, after.Threads, ThreadsThatComeAndGo);
        if (after.Callbacks is { } counts)
        {
            Add("ends of connections", (int)counts.Opened, (int)(counts.Closed + counts.Detached), 0);
            Add("connections without an end", 0, (int)(counts.Opened - counts.Closed - counts.Detached), 0);
            Add("sends that never complete", 0, (int)(counts.Sends - counts.SendsEnded), 0);
        }

        return leaks;

        void Add(string what, int then, int now, int tolerance)
        {
            if (now > then + tolerance)
            {
                leaks.Add(string.Create(CultureInfo.InvariantCulture, $"{now} {what} instead of {then}"));
            }
        }
    }

    /// <summary>By how much resident memory grew over the samples, and how much is within what a heap does by itself.</summary>
    public static MemoryGrowth MemoryGrowth(IReadOnlyList<long> samples)
    {
        var lows = samples.Order().ElementAt(samples.Count / 10);
        return new MemoryGrowth(Trend.Growth(samples, Stretches), Math.Max(LeastGrowth, lows * GrowthFraction), lows);
    }
}

/// <summary>In bytes.</summary>
internal sealed record MemoryGrowth(double Growth, double Permitted, long Low)
{
    public bool IsLeak => Growth > Permitted;
}
