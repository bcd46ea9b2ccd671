using System.Text.Json;

namespace Evio.Bench;

/// <summary>All that was measured, each pair by itself, for programs.</summary>
internal static class JsonReport
{
    private static readonly JsonSerializerOptions Options = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.CamelCase };

    public static string Write(Report report) => JsonSerializer.Serialize(
        new
        {
            report.Command,
            report.Machine,
            report.Warning,
            ServerProcessor = report.Processors.Server,
            LoadProcessor = report.Processors.Load,
            report.Options.Pairs,
            report.Options.Duration,
            report.Options.WarmUp,
            ServerLogging = report.Options.Logging.ToString(),
            Scenarios = report.Scenarios.Select(static scenario => new
            {
                scenario.Scenario.Name,
                scenario.Scenario.Title,
                scenario.Skipped,
                scenario.Rate,
                Variants = scenario.Variants.Select(variant => new
                {
                    variant.Variant.Name,
                    variant.Failure,
                    RequestsPerCpuSecond = variant.HasFigures ? variant.Median(static pair => pair.RequestsPerCpuSecond) : (double?)null,
                    RatioToBaseline = variant.RatioTo(scenario.Baseline, static pair => pair.RequestsPerCpuSecond),
                    RatioToCEpoll = variant.RatioTo(scenario.Find(Variant.CEpoll), static pair => pair.RequestsPerCpuSecond),
                    variant.Pairs,
                }),
            }),
        },
        Options);
}
