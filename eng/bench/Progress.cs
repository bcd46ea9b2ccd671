using System.Diagnostics;

namespace Evio.Bench;

/// <summary>One line on the terminal that tells how far it is; where there is no terminal, a line for each step.</summary>
internal sealed class Progress(double expectedSeconds)
{
    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly bool _isTerminal = !Console.IsErrorRedirected;

    public void Report(string step)
    {
        var elapsed = Stopwatch.GetElapsedTime(_started);
        var line = $"[{Minutes(elapsed)} of about {Minutes(TimeSpan.FromSeconds(expectedSeconds))}] {step}";
        if (_isTerminal)
        {
            // Erases what the longer line before it has left.
            Console.Error.Write($"\r{line}\e[K");
        }
        else
        {
            Console.Error.WriteLine(line);
        }
    }

    public void Clear()
    {
        if (_isTerminal)
        {
            Console.Error.Write("\r\e[K");
        }
    }

    // An hour is 60:00.
    private static string Minutes(TimeSpan time) => $"{(int)time.TotalMinutes:00}:{time.Seconds:00}";
}
