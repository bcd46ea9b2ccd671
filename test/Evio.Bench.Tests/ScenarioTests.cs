namespace Evio.Bench.Tests;

public sealed class ScenarioTests
{
    [Fact]
    public void OrdinaryHandlersComeBeforeTheOnesThatAreWrittenForSpeed()
    {
        var names = Scenario.All.Select(static scenario => scenario.Name).ToList();

        Assert.Equal("string-64", names[0]);
        Assert.True(names.IndexOf("object-rate") < names.IndexOf("plaintext-1"));
        Assert.Equal(["string-64", "object-64", "plaintext-64"], Bench.Choose([], full: false).Select(static scenario => scenario.Name));
    }

    [Fact]
    public void ThoseOfHttpArePutToAllKestrelsAndCompared()
    {
        var ordinary = Scenario.All.TakeWhile(static scenario => scenario.Name != "plaintext-1");

        Assert.All(ordinary, static scenario => Assert.Equal(Variant.Kestrel, scenario.Variants));
        Assert.All(ordinary, static scenario => Assert.NotNull(scenario.Probe));
    }

    [Fact]
    public void WhatIsProbedIsWhatIsMeasured()
    {
        var loads = Scenario.All.Where(static scenario => scenario.Probe is not null).Select(static scenario => (scenario.Probe!, scenario.Load as WrkLoad));

        Assert.All(loads.Where(static pair => pair.Item2 is not null), static pair =>
        {
            var (probe, load) = pair;
            Assert.Equal(probe.Path, load!.Path);
            Assert.Equal(probe.AcceptEncoding is null ? [] : [$"Accept-Encoding: {probe.AcceptEncoding}"], load.Headers);
            Assert.Equal(probe.Json is not null, load.Script?.Name == "post");
        });
    }

    [Fact]
    public void WrkGetsHeadersAndAScript()
    {
        var scratch = Directory.CreateTempSubdirectory("evio-bench-").FullName;
        try
        {
            var load = new WrkLoad(8, "/object", "https") { Headers = ["A: b", "C: d"], Script = WrkScript.PostJson("""{"a":[1]}""") };

            var arguments = load.Arguments(5001, 2, scratch).ToList();

            var script = Path.Combine(scratch, "post.lua");
            Assert.Equal(
                ["-t", "1", "-c", "8", "-d", "2s", "--latency", "-H", "A: b", "-H", "C: d", "-s", script, "https://127.0.0.1:5001/object"], arguments);
            Assert.Contains("""wrk.body = [==[{"a":[1]}]==]""", File.ReadAllText(script), StringComparison.Ordinal);
        }
        finally
        {
            Directory.Delete(scratch, recursive: true);
        }
    }
}
