using System.Text.Json;
using System.Xml.Linq;

namespace Evio.Bench.Tests;

public class ReportTests
{
    private static readonly Scenario Plaintext = Scenario.All.Single(static scenario => scenario.Name == "plaintext-64");

    [Fact]
    public void RatiosStandBesideTheMediansAndTheBaselineHasNone()
    {
        var markdown = MarkdownReport.Write(Create(
            new VariantResult(Variant.EvioInline, [Pair(requests: 3000, cpu: 0.5), Pair(requests: 4000, cpu: 0.5), Pair(requests: 6000, cpu: 0.5)], null),
            new VariantResult(Variant.Sockets, [Pair(requests: 1000), Pair(requests: 2000), Pair(requests: 2000)], null)));

        // Per second 4,000 to 2,000 in the middle, but the ratios of the pairs are 3, 2 and 3; and with half the CPU time twice that.
        Assert.Contains("| 4,000 · 3.00× | 8,000 · 6.00× (4.00–6.00) |", markdown, StringComparison.Ordinal);
        Assert.Matches(@"\| sockets +\| +2,000 \| +2,000 \|", markdown);
    }

    [Fact]
    public void AVariantThatFailedHasNoFigures()
    {
        var report = Create(
            new VariantResult(Variant.EvioInline, [Pair(requests: 3000)], "7 failed requests, 3000 answered: read 7\nmore"),
            new VariantResult(Variant.Sockets, [Pair(requests: 1000)], null));
        var markdown = MarkdownReport.Write(report);

        Assert.Contains("failed: 7 failed requests, 3000 answered: read 7 |", markdown, StringComparison.Ordinal);
        Assert.DoesNotContain("3,000", markdown, StringComparison.Ordinal);
        Assert.True(report.Scenarios[0].HasFailed);
        Assert.Equal(1, SvgBars(report));
    }

    [Fact]
    public void SeveralScenariosHaveOneTableInFront()
    {
        var one = Create(
            new VariantResult(Variant.EvioAdaptive, [Pair(requests: 3000)], null),
            new VariantResult(Variant.EvioPool, [], "a failure"),
            new VariantResult(Variant.Sockets, [Pair(requests: 2000)], null));
        var other = new ScenarioResult(
            Scenario.All.Single(static scenario => scenario.Name == "json-1"),
            [new VariantResult(Variant.EvioAdaptive, [Pair(requests: 1000)], null), new VariantResult(Variant.Sockets, [Pair(requests: 2000)], null)]);

        var markdown = MarkdownReport.Write(one with { Scenarios = [.. one.Scenarios, other] });

        Assert.Contains(
            """
            | requests per CPU second | sockets | evio-adaptive | evio-pool |
            | ----------------------- | ------: | ------------: | --------: |
            | plaintext-64            |   2,000 |         1.50× |    failed |
            | json-1                  |   2,000 |         0.50× |           |

            ### plaintext-64
            """,
            markdown,
            StringComparison.Ordinal);
        Assert.DoesNotContain("| requests per CPU second | sockets |", MarkdownReport.Write(one), StringComparison.Ordinal);
    }

    [Fact]
    public void TheReportSaysWhatTheServersLog()
    {
        var report = Create();

        Assert.Contains("The servers log as shipped.", MarkdownReport.Write(report), StringComparison.Ordinal);
        Assert.Contains(
            "The servers log nothing of a request.",
            MarkdownReport.Write(report with { Options = report.Options with { Logging = ServerLogging.None } }),
            StringComparison.Ordinal);
    }

    [Fact]
    public void AScenarioThatWasSkippedSaysWhy()
    {
        var report = Create() with { Scenarios = [new ScenarioResult(Plaintext, [], "wrk is not installed (package wrk)")] };

        Assert.Contains("Skipped: wrk is not installed (package wrk).", MarkdownReport.Write(report), StringComparison.Ordinal);
        Assert.Equal(0, SvgBars(report));
    }

    [Fact]
    public void AGeneratorAtItsLimitIsMarked()
    {
        var markdown = MarkdownReport.Write(Create(
            new VariantResult(Variant.EvioInline, [Pair(requests: 3000) with { LoadBusy = 0.99 }], null),
            new VariantResult(Variant.Sockets, [Pair(requests: 1000)], null)));

        Assert.Contains("| evio-inline † |", markdown, StringComparison.Ordinal);
        Assert.Contains("\n† The load generator", markdown, StringComparison.Ordinal);
    }

    [Fact]
    public void ABusyProcessorIsAWarning()
    {
        var calm = Create(new VariantResult(Variant.Sockets, [Pair(requests: 1000)], null));
        var disturbed = Create(new VariantResult(Variant.Sockets, [Pair(requests: 1000) with { OthersBusy = 0.4 }], null));

        Assert.Null(calm.Warning);
        Assert.Contains("40", disturbed.Warning, StringComparison.Ordinal);
        Assert.Contains(disturbed.Warning!, MarkdownReport.Write(disturbed), StringComparison.Ordinal);
    }

    [Fact]
    public void JsonHasEveryPair()
    {
        var report = Create(
            new VariantResult(Variant.EvioInline, [Pair(requests: 3000), Pair(requests: 4000)], null),
            new VariantResult(Variant.Sockets, [Pair(requests: 1000), Pair(requests: 2000)], null));
        using var json = JsonDocument.Parse(JsonReport.Write(report));
        var variant = json.RootElement.GetProperty("scenarios")[0].GetProperty("variants")[0];

        Assert.Equal(4000, variant.GetProperty("pairs")[1].GetProperty("load").GetProperty("requests").GetInt64());
        Assert.Equal(2.5, variant.GetProperty("ratioToBaseline").GetProperty("median").GetDouble());
    }

    [Fact]
    public void TheReportReplacesTheOneBeforeIt()
    {
        const string begin = "<!-- results of eng/bench.sh: begin -->", end = "<!-- results of eng/bench.sh: end -->";

        Assert.Equal($"a\n{begin}\n\nnew\n\n{end}\nb", MarkdownReport.Insert($"a\n{begin}\nold\n{end}\nb", "\nnew\n"));
        Assert.Throws<BenchException>(() => MarkdownReport.Insert($"a\n{end}\n{begin}\nb", "new"));
    }

    [Fact]
    public void ScenariosAndVariantsAreFoundByName()
    {
        Assert.Equal(Scenario.All.Count, Scenario.All.Select(static scenario => scenario.Name).Distinct().Count());
        Assert.Equal(["json-1", "http2"], Bench.Choose(["http2", "json-1"], full: false).Select(static scenario => scenario.Name));
        Assert.Equal(Scenario.All, Bench.Choose([], full: true));
        Assert.All(Bench.Choose([], full: false), static scenario => Assert.True(scenario.IsQuick));
        Assert.Throws<BenchException>(() => Bench.Choose(["plaintext"], full: false));
        Assert.Throws<BenchException>(() => Bench.CheckVariants(["evio-inline", "no-such"]));

        Assert.Equal(
            [Variant.EvioAdaptive, Variant.EvioInline, Variant.EvioPool, Variant.Sockets],
            Variant.Kestrel.Where(static variant => Variant.Matches(variant, ["evio", "sockets"])));
        Assert.Equal(Variant.Kestrel, Variant.Kestrel.Where(static variant => Variant.Matches(variant, [])));
    }

    private static Measurement Pair(long requests, double cpu = 1) =>
        new(new LoadResult(1, requests, 0, null, 100, 200), cpu, ServerBusy: 1, LoadBusy: 0.5, OthersBusy: 0, PeakMemory: 64 * 1024 * 1024);

    private static Report Create(params VariantResult[] variants) =>
        new(
            new Machine("Test CPU", 2, "6.0", ".NET 10", "2026-01-01", "0 0 0", BusyFraction: 0),
            "eng/bench.sh",
            new RunOptions(Pairs: 3, Duration: 1, WarmUp: 1, Transports: []),
            (0, 1),
            [new ScenarioResult(Plaintext, variants)]);

    private static int SvgBars(Report report) =>
        XDocument.Parse(SvgChart.Write(report)).Descendants().Count(static element => element.Name.LocalName == "rect");
}
