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
        Assert.Equal(["signalr-echo-64"], ordinary.Where(static scenario => scenario.Probe is null).Select(static scenario => scenario.Name));
    }

    [Fact]
    public void WhatNeedsPackagesIsServedByAnApplicationOfItsOwn()
    {
        Assert.Equal(
            [
                "grpc-unary", "grpc-stream", "signalr-echo-64", "yarp-64", "yarp-evio-64", "pg-row-64", "pg-rows-20-64", "pg-fortunes-64", "cached-row-64",
                "grpc-unary-rate", "yarp-rate", "pg-row-rate",
            ],
            Scenario.All.Where(static scenario => scenario.Application == Application.Ecosystem).Select(static scenario => scenario.Name));
        Assert.All(
            Scenario.All.Where(static scenario => scenario.Name.StartsWith("pg-", StringComparison.Ordinal)),
            static scenario => Assert.Equal([scenario.RateOfBaseline is null ? Tool.Wrk : Tool.Compiler, Tool.InitDb, Tool.Postgres, Tool.Psql], scenario.Tools));
        Assert.All([Tool.InitDb, Tool.Postgres, Tool.Psql], static tool => Assert.Equal("postgresql", tool.Package));
    }

    [Fact]
    public void AMissingToolIsAnObstacle()
    {
        var scenario = new Scenario("none", "None", ServerPort.Http, Variant.Kestrel, new MissingLoad());

        Assert.Equal("no-such-program is not installed (package no-such-package)", scenario.Obstacle);
    }

    [Fact]
    public void H2LoadGetsAMessageOfGrpc()
    {
        var scratch = Directory.CreateTempSubdirectory("evio-bench-").FullName;
        try
        {
            var load = new H2Load(16, 32, "/bench.Talk/Repeat") { Call = new GrpcCall("Hello", 20) };

            var arguments = load.Arguments(5001, 2, scratch).ToList();

            var message = Path.Combine(scratch, "grpc-message");
            Assert.Equal(
                [
                    "-t", "1", "-c", "16", "-m", "32", "-D", "2", "--log-file", Path.Combine(scratch, "h2load.log"),
                    "-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers", "http://127.0.0.1:5001/bench.Talk/Repeat",
                ],
                arguments);
            Assert.Equal("\0\0\0\0\a\n\u0005Hello"u8, File.ReadAllBytes(message));
            Assert.Equal(240, load.Call.AnswerBytes);
        }
        finally
        {
            Directory.Delete(scratch, recursive: true);
        }
    }

    [Fact]
    public void TheirNamesSayWhichHaveAFixedRate()
    {
        Assert.All(Scenario.All, static scenario => Assert.Equal(scenario.Name.EndsWith("-rate", StringComparison.Ordinal), scenario.RateOfBaseline is not null));

        var scratch = Path.GetTempPath();
        Assert.Equal(
            ["http", "--port", "5001", "--seconds", "2", "--path", "/yield", "--connections", "64", "--rate", "12345"],
            Find("yield-rate").Load.AtRate(12345).Arguments(5001, 2, scratch));
        Assert.Equal(
            [
                "-t", "1", "-c", "64", "-m", "1", "-D", "2", "--log-file", Path.Combine(scratch, "h2load.log"),
                "--rps", "192.891", "--h1", "https://127.0.0.1:5001/object",
            ],
            Find("object-https-rate").Load.AtRate(12345).Arguments(5001, 2, scratch));
        Assert.Equal(["--rps", "771.562"], Find("http2-rate").Load.AtRate(12345).Arguments(5001, 2, scratch).SkipWhile(static argument => argument != "--rps").Take(2));
        Assert.Throws<NotSupportedException>(() => Find("yield-64").Load.AtRate(12345));

        static Scenario Find(string name) => Scenario.All.Single(scenario => scenario.Name == name);
    }

    [Fact]
    public void WhatIsProbedIsWhatIsMeasured()
    {
        var loads = Scenario.All.Where(static scenario => scenario.Probe is not null).Select(static scenario => (scenario.Probe!, scenario.Load as WrkLoad));

        Assert.All(loads.Where(static pair => pair.Item2 is not null), static pair =>
        {
            var (probe, load) = pair;
            // Where the rows are random, the probe asks for those with certain ids.
            Assert.Equal(load!.Path, probe.Path.Replace("?id=42", "", StringComparison.Ordinal));
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

    private sealed record MissingLoad : Load
    {
        public override Tool Tool { get; } = new("no-such-program", "no-such-package");

        public override IEnumerable<string> Arguments(int port, int seconds, string scratch) => [];

        public override LoadResult Parse(string output, int seconds, string scratch) =>
            throw new LoadOutputException("It did not run.", output);
    }
}
