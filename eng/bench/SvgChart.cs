using System.Net;
using System.Text;

namespace Evio.Bench;

/// <summary>Requests per CPU second of each scenario, as bars relative to the transport on System.Net.Sockets.</summary>
internal static class SvgChart
{
    private const int LabelWidth = 140;
    private const int BarsWidth = 480;
    private const int ValueWidth = 60;
    private const int BarHeight = 16;
    private const int TitleHeight = 30;

    public static string Write(Report report)
    {
        var body = new StringBuilder();
        var groups = report.Scenarios
            .Where(static scenario => scenario.Scenario.IdleConnections is null && scenario.Scenario.RateOfBaseline is null)
            .Select(static scenario => (scenario.Scenario, Bars: Bars(scenario)))
            .Where(static group => group.Bars.Count > 0)
            .ToList();
        var longest = groups.SelectMany(static group => group.Bars).Select(static bar => bar.Ratio).DefaultIfEmpty(1).Max();

        var y = 24;
        foreach (var (scenario, bars) in groups)
        {
            var top = y + TitleHeight - 6;
            body.AppendLine(Invariant($"""  <text class="title" x="0" y="{y + 18}">{WebUtility.HtmlEncode(scenario.Name)}</text>"""));
            y += TitleHeight;
            foreach (var (variant, ratio) in bars)
            {
                var width = ratio / longest * BarsWidth;
                body.AppendLine(Invariant($"""  <text x="{LabelWidth - 8}" y="{y + 11}" text-anchor="end">{variant.Name}</text>"""));
                body.AppendLine(Invariant($"""  <rect class="{Class(variant)}" x="{LabelWidth}" y="{y}" width="{width:0.0}" height="{BarHeight - 4}"/>"""));
                body.AppendLine(Invariant($"""  <text x="{LabelWidth + width + 6:0.0}" y="{y + 11}">{ratio:0.00}×</text>"""));
                y += BarHeight;
            }

            var one = LabelWidth + (BarsWidth / longest);
            body.AppendLine(Invariant($"""  <line x1="{one:0.0}" y1="{top}" x2="{one:0.0}" y2="{y}"/>"""));
            y += 6;
        }

        // Text in the colour of the page; the bars' colours have enough contrast on white and on black.
        return Invariant($$"""
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{LabelWidth + BarsWidth + ValueWidth}} {{y}}" font-family="system-ui, sans-serif" font-size="12">
              <style>
                text { fill: #333; } .title { font-weight: 600; } line { stroke: #888; stroke-dasharray: 3 3; }
                .evio { fill: #2b8a6e; } .sockets { fill: #8a8fa3; } .limit { fill: #c98a2b; }
                @media (prefers-color-scheme: dark) { text { fill: #ddd; } }
              </style>
              <text x="0" y="14">Requests per second of server CPU, sockets = 1; longer is better</text>

            """) + body + "</svg>\n";
    }

    private static List<(Variant Variant, double Ratio)> Bars(ScenarioResult scenario) =>
    [
        .. from variant in scenario.Variants
           let ratio = variant.RatioTo(scenario.Baseline, static pair => pair.RequestsPerCpuSecond)
           where ratio is not null
           select (variant.Variant, ratio.Median),
    ];

    private static string Class(Variant variant) => variant.Transport ?? "limit";

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
