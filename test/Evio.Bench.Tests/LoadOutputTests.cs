namespace Evio.Bench.Tests;

public class LoadOutputTests
{
    private const string Wrk = """
        Running 2s test @ http://127.0.0.1:40001/plaintext
          1 threads and 64 connections
          Thread Stats   Avg      Stdev     Max   +/- Stdev
            Latency     2.59ms    4.87ms  52.11ms   90.33%
            Req/Sec    26.61k    10.02k   39.45k    60.00%
          Latency Distribution
             50%  643.00us
             75%    1.89ms
             90%    8.23ms
             99%   24.46ms
          53011 requests in 2.05s, 4.65MB read
        """;

    private const string WrkRates = """

        Requests/sec:  25858.19
        Transfer/sec:      2.27MB
        """;

    private const string H2LoadRun = """
        starting benchmark...
        spawning thread #0: 16 total client(s). Timing-based test with 0s of warm-up time and 2s of main duration for measurements.
        Warm-up started for thread #0.
        Main benchmark duration is over for thread #0. Stopping all clients.
        Stopped all clients for thread #0

        finished in 2.00s, 31234.50 req/s, 2.21MB/s
        requests: 62469 total, 62981 started, 62469 done, 62469 succeeded, 0 failed, 0 errored, 0 timeout
        status codes: 62469 2xx, 0 3xx, 0 4xx, 0 5xx
        traffic: 1.68MB (1761620) total, 12.33KB (12624) headers (space savings 94.66%), 1.19MB (1249380) data
        """;

    [Fact]
    public void WrkReportsARun()
    {
        var run = WrkLoad.Parse(Wrk + WrkRates);

        Assert.Equal(new LoadResult(2.05, 53011, 0, null, 643, 24460), run);
        Assert.Equal(53011 / 2.05, run.RequestsPerSecond);
    }

    [Fact]
    public void WrkReportsFailedRequestsOfBothKinds()
    {
        var run = WrkLoad.Parse(Wrk + """

              Socket errors: connect 1, read 20, write 300, timeout 4000
              Non-2xx or 3xx responses: 50000
            """ + WrkRates);

        Assert.Equal(54321, run.Failed);
        Assert.Contains("timeout 4000", run.Failure, StringComparison.Ordinal);
        Assert.Contains("Non-2xx or 3xx responses: 50000", run.Failure, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("643.00us", 643)]
    [InlineData("1.25ms", 1250)]
    [InlineData("10.10s", 10_100_000)]
    [InlineData("1.50m", 90_000_000)]
    [InlineData("2.00h", 7_200_000_000)]
    public void TimesHaveUnits(string time, double expected) => Assert.Equal(expected, WrkLoad.Microseconds(time), precision: 3);

    [Theory]
    [InlineData("")]
    [InlineData("unable to connect to 127.0.0.1:1 Connection refused")]
    public void WrkThatDidNotRunIsNoResult(string output) => Assert.Throws<LoadOutputException>(() => WrkLoad.Parse(output));

    [Fact]
    public void H2LoadReportsARun()
    {
        var run = H2Load.Parse(H2LoadRun, 2, ["1764035000000001\t200\t300", "1764035000000002\t200\t100", "1764035000000003\t200\t200"]);

        Assert.Equal(new LoadResult(2, 62469, 0, null, 200, 300), run);
    }

    [Fact]
    public void H2LoadReportsFailedRequests()
    {
        var output = H2LoadRun.Replace("62469 succeeded, 0 failed, 0 errored, 0 timeout", "62460 succeeded, 9 failed, 2 errored, 1 timeout", StringComparison.Ordinal);
        var run = H2Load.Parse(output, 2, ["1\t200\t300"]);

        Assert.Equal(12, run.Failed);
        Assert.Contains("9 failed", run.Failure, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(62469, 0)]
    [InlineData(62469 - 512, 0)]
    [InlineData(62469 + 512, 0)]
    [InlineData(62469 - 513, 513)]
    [InlineData(0, 62469)]
    public void CallsOfGrpcWithoutMessagesAreFailed(int messages, long failed)
    {
        var load = new H2Load(16, 32, "/") { Call = new GrpcCall("Hello, World!", 1) };
        var output = H2LoadRun.Replace("1249380", $"{messages * 20}", StringComparison.Ordinal);

        var run = load.CheckData(output, H2Load.Parse(output, 2, ["1\t200\t300"]), load.Call);

        Assert.Equal(failed, run.Failed);
        Assert.Equal(failed > 0, run.Failure is not null);
    }

    [Fact]
    public void H2LoadThatDidNotRunIsNoResult() => Assert.Throws<LoadOutputException>(() => H2Load.Parse("could not resolve host", 2, []));

    [Fact]
    public void TheOwnGeneratorReportsARunInItsLastLine() =>
        Assert.Equal(
            new LoadResult(1.5, 300, 2, "connect: refused", 12.5, 99),
            OwnLoad.Parse("""
                open
                {"seconds": 1.5, "requests": 300, "failed": 2, "failure": "connect: refused", "p50_us": 12.5, "p99_us": 99.0}
                """));

    [Theory]
    [InlineData("")]
    [InlineData("bind: Cannot assign requested address")]
    [InlineData("{\"seconds\": 1.5}")]
    public void TheOwnGeneratorThatDidNotRunIsNoResult(string output) => Assert.Throws<LoadOutputException>(() => OwnLoad.Parse(output));
}
