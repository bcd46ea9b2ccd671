using System.Globalization;
using System.Text;

namespace Evio.Soak;

internal sealed record ServerResult(
    string Name, Tally Tally, IReadOnlyList<string> Errors, ServerState Before, ServerState After, MemoryGrowth Memory)
{
    public IReadOnlyList<string> Leaks { get; } = Soak.Leaks.Between(Before, After);

    public bool IsClean => Tally is { Failed: 0, Requests: > 0 } && Errors.Count == 0 && Leaks.Count == 0 && !Memory.IsLeak;
}

/// <summary>What came of it all.</summary>
internal sealed record Report(int Seed, TimeSpan Duration, IReadOnlyList<ServerResult> Servers)
{
    public bool IsClean => Servers.All(static server => server.IsClean);

    public string Write()
    {
        var text = new StringBuilder();
        Line($"Soak of {Duration.TotalMinutes} minutes, seed {Seed}: {(IsClean ? "nothing lost, nothing leaked" : "FAILED")}");
        foreach (var server in Servers)
        {
            var (tally, memory) = (server.Tally, server.Memory);
            Line($"{server.Name}: {(server.IsClean ? "clean" : "FAILED")}");
            Line($"  {tally.Requests} requests, {tally.Bytes} bytes verified, {tally.Failed} failures");
            Line($"  {tally.Faults} faults by clients, {tally.Repeats} datagrams repeated");
            if (server.After.Callbacks is { } counts)
            {
                Line($"  callbacks: {counts}");
            }

            Line($"  after warm-up: {server.Before}");
            Line($"  at the end:    {server.After}");
            Line($"  memory under load: {memory.Low / 1048576.0:F1} MiB");
            Line($"  memory growth: {memory.Growth / 1048576:+0.0;-0.0;0.0} MiB of {memory.Permitted / 1048576:F0} permitted");
            List("leak", server.Leaks);
            List("open", server.Leaks.Count > 0 ? server.After.Sockets : []);
            List("failure", tally.Failures);
            List("the server logged", server.Errors);
        }

        return text.ToString();

        void List(string what, IReadOnlyList<string> entries)
        {
            foreach (var entry in entries.Take(20))
            {
                Line($"  {what}: {entry}");
            }
        }

        void Line(FormattableString line) => text.AppendLine(line.ToString(CultureInfo.InvariantCulture));
    }
}
