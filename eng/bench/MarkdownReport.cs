using System.Globalization;
using System.Text;

namespace Evio.Bench;

/// <summary>The report as it goes into the documentation.</summary>
internal static class MarkdownReport
{
    /// <summary>From this share of its processor on, a load generator may be what limits a figure.</summary>
    private const double LoadBound = 0.95;

    private const string Begin = "<!-- results of eng/bench.sh: begin -->";
    private const string End = "<!-- results of eng/bench.sh: end -->";

    /// <summary>The document with the report in the place of the one before it.</summary>
    /// <exception cref="BenchException">The document has no place for it.</exception>
    public static string Insert(string document, string markdown)
    {
        var begin = document.IndexOf(Begin, StringComparison.Ordinal);
        var end = begin < 0 ? -1 : document.IndexOf(End, begin, StringComparison.Ordinal);
        return end < 0
            ? throw new BenchException($"The document has no lines '{Begin}' and '{End}'.")
            : $"{document[..(begin + Begin.Length)]}\n\n{markdown.Trim()}\n\n{document[end..]}";
    }

    public static string Write(Report report)
    {
        var text = new StringBuilder();
        text.AppendLine($"`{report.Command}`").AppendLine();
        text.AppendLine($"{report.Machine.Line}.");
        text.AppendLine($"Server on processor {report.Processors.Server}, load on {report.Processors.Load}; " +
            $"{report.Options.Pairs} pairs of {report.Options.Duration} s after {report.Options.WarmUp} s of warm-up. " +
            (report.Options.Logging == ServerLogging.None ? "The servers log nothing of a request." : "The servers log as shipped."));
        if (report.Warning is { } warning)
        {
            text.AppendLine().AppendLine($"**{warning}**");
        }

        WriteSummary(text, report);
        foreach (var scenario in report.Scenarios)
        {
            text.AppendLine().AppendLine($"### {scenario.Scenario.Name}").AppendLine().AppendLine($"{Title(scenario)}.").AppendLine();
            if (scenario.Skipped is { } reason)
            {
                text.AppendLine($"Skipped: {reason}.");
            }
            else
            {
                WriteTable(text, scenario);
            }
        }

        return text.ToString();
    }

    private static string Title(ScenarioResult scenario) =>
        scenario.Rate is { } rate ? $"{scenario.Scenario.Title}: {rate.ToString("N0", CultureInfo.InvariantCulture)} requests/s" : scenario.Scenario.Title;

    /// <summary>What all variants have in common, of all scenarios in one table.</summary>
    private static void WriteSummary(StringBuilder text, Report report)
    {
        ScenarioResult[] scenarios =
        [
            .. report.Scenarios.Where(static scenario => scenario.Scenario.IdleConnections is null && scenario.Find(Variant.Sockets) is { HasFigures: true }),
        ];
        if (scenarios.Length < 2)
        {
            return;
        }

        Variant[] others =
        [
            .. Variant.Kestrel.Where(variant => variant != Variant.Sockets && scenarios.Any(scenario => scenario.Find(variant) is not null)),
        ];
        List<string[]> rows = [["requests per CPU second", Variant.Sockets.Name, .. others.Select(static variant => variant.Name)]];
        foreach (var scenario in scenarios)
        {
            rows.Add(
            [
                scenario.Scenario.Name,
                Count(scenario.Find(Variant.Sockets)!.Median(static pair => pair.RequestsPerCpuSecond)),
                .. others.Select(variant => scenario.Find(variant) switch
                {
                    null => "",
                    { HasFigures: false } => "failed",
                    var found => Short(found.RatioTo(scenario.Baseline, static pair => pair.RequestsPerCpuSecond)) + "×",
                }),
            ]);
        }

        text.AppendLine();
        WriteRows(text, rows);
    }

    private static void WriteTable(StringBuilder text, ScenarioResult scenario)
    {
        var baseline = scenario.Baseline;
        var limit = scenario.Find(Variant.CEpoll);
        var isIdle = scenario.Scenario.IdleConnections is not null;
        List<string[]> rows =
        [
            isIdle
                ? ["", "memory per connection", "memory in all", "errors"]
                : ["", "requests/s", "requests per CPU second", .. limit is null ? (string[])[] : ["of c-epoll"], "p50", "p99", "peak memory", "errors"],
        ];
        foreach (var variant in scenario.Variants)
        {
            if (!variant.HasFigures)
            {
                rows.Add([variant.Variant.Name, .. Enumerable.Repeat("", rows[0].Length - 2), $"failed: {FirstLine(variant.Failure)}"]);
                continue;
            }

            rows.Add(isIdle
                ? [variant.Variant.Name, Cell(static pair => pair.MemoryPerConnection!.Value, Bytes), Cell(static pair => pair.PeakMemory, Bytes), "0"]
                :
                [
                    variant.Variant.Name + (scenario.Rate is null && variant.Median(static pair => pair.LoadBusy) > LoadBound ? " †" : ""),
                    Cell(static pair => pair.Load.RequestsPerSecond, Count),
                    Cell(static pair => pair.RequestsPerCpuSecond, Count, withRange: true),
                    .. limit is null ? (string[])[] : [Short(variant.RatioTo(limit, static pair => pair.RequestsPerCpuSecond))],
                    Cell(static pair => pair.Load.P50Microseconds, Time),
                    Cell(static pair => pair.Load.P99Microseconds, Time),
                    Cell(static pair => pair.PeakMemory, Bytes),
                    "0",
                ]);

            string Cell(Func<Measurement, double> value, Func<double, string> format, bool withRange = false) =>
                format(variant.Median(value)) + (variant == baseline ? "" : Long(variant.RatioTo(baseline, value), withRange));
        }

        WriteRows(text, rows);
        if (rows.Any(static row => row[0].EndsWith('†')))
        {
            text.AppendLine().AppendLine("† The load generator was at its limit: requests per CPU second is the figure that counts.");
        }
    }

    /// <summary>A table whose first row is its heading.</summary>
    private static void WriteRows(StringBuilder text, List<string[]> rows)
    {
        int[] widths = [.. rows[0].Select((_, column) => rows.Max(row => row[column].Length))];
        rows.Insert(1, [.. widths.Select(static (width, column) => column == 0 ? new string('-', width) : new string('-', Math.Max(1, width - 1)) + ":")]);
        foreach (var row in rows)
        {
            text.Append('|');
            for (var column = 0; column < row.Length; column++)
            {
                text.Append(' ').Append(column == 0 ? row[column].PadRight(widths[column]) : row[column].PadLeft(widths[column])).Append(" |");
            }

            text.AppendLine();
        }
    }

    private static string Long(Ratio? ratio, bool withRange) => ratio is null
        ? ""
        : Invariant($" · {ratio.Median:0.00}×") + (withRange ? Invariant($" ({ratio.Min:0.00}–{ratio.Max:0.00})") : "");

    private static string Short(Ratio? ratio) => ratio is null ? "" : Invariant($"{ratio.Median:0.00}");

    private static string Count(double value) => Invariant($"{value:N0}");

    private static string Time(double microseconds) => microseconds switch
    {
        < 1e3 => Invariant($"{microseconds:0} µs"),
        < 1e6 => Invariant($"{microseconds / 1e3:0.00} ms"),
        _ => Invariant($"{microseconds / 1e6:0.00} s"),
    };

    private static string Bytes(double bytes) =>
        Math.Abs(bytes) < 1024 * 1024 ? Invariant($"{bytes / 1024:0.0} KiB") : Invariant($"{bytes / (1024 * 1024):0} MiB");

    private static string FirstLine(string? text) => (text ?? "not measured").Split('\n')[0].Replace('|', '/');

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
