namespace Evio.Soak.Tests;

public class ReportTests
{
    private const long MiB = 1024 * 1024;

    private static readonly CallbackCounts Counts = new(
        Opened: 10, Closed: 7, Detached: 3, Sends: 100, SendsEnded: 100, Wakes: 50, Woken: 49, Datagrams: 30, Saturated: 2, Thrown: 5);

    private static readonly ServerState Start = new(100, 20, 0, 100 * MiB);

    [Fact]
    public void WhatIsBackDoesNotLeak() => Assert.Empty(Leaks.Between(Start, Start with { Threads = 12, ResidentMemory = 120 * MiB }));

    [Fact]
    public void OneDescriptorMoreIsALeak() => Assert.Equal(["101 descriptors instead of 100"], Leaks.Between(Start, Start with { Descriptors = 101 }));

    [Fact]
    public void AConnectionThatIsLeftIsALeak() => Assert.Equal(["1 connections instead of 0"], Leaks.Between(Start, Start with { Connections = 1 }));

    [Fact]
    public void ThreadsOfTheRuntimeComeAndGo()
    {
        Assert.Empty(Leaks.Between(Start, Start with { Threads = 23 }));
        Assert.Equal(["24 threads instead of 20"], Leaks.Between(Start, Start with { Threads = 24 }));
    }

    [Theory]
    [InlineData(0, false)]
    [InlineData(100_000, false)]
    [InlineData(400_000, true)]
    public void MemoryLeaksWhenItGrowsByMoreThanAHeapDoesByItself(long bytesPerSample, bool isLeak) =>
        Assert.Equal(isLeak, Leaks.MemoryGrowth([.. Enumerable.Range(0, 80).Select(i => (50 * MiB) + (i * bytesPerSample))]).IsLeak);

    [Fact]
    public void AServerWithRequestsAndNothingElseToSayIsClean()
    {
        var report = Report(Result());

        Assert.True(report.IsClean);
        Assert.Contains("seed 42: nothing lost, nothing leaked", report.Write(), StringComparison.Ordinal);
    }

    [Fact]
    public void AServerThatAnsweredNothingIsNotClean() => Assert.False(Report(Result() with { Tally = new Tally() }).IsClean);

    [Fact]
    public void AFailureIsToldInWords()
    {
        var failed = Result();
        failed.Tally.Fail("redis (client 1, visit 2): hangs");
        var report = Report(Result(), failed);

        Assert.False(report.IsClean);
        Assert.Contains("seed 42: FAILED", report.Write(), StringComparison.Ordinal);
        Assert.Contains("failure: redis (client 1, visit 2): hangs", report.Write(), StringComparison.Ordinal);
    }

    [Fact]
    public void AnErrorInTheServersLogIsAFailure() => Assert.False(Report(Result(errors: ["fail: Kestrel[13]"])).IsClean);

    [Fact]
    public void ALeakIsAFailure() => Assert.False(Report(Result(after: Start with { Descriptors = 101 })).IsClean);

    [Fact]
    public void GrowthIsAFailure() => Assert.False(Report(Result() with { Memory = new MemoryGrowth(20 * MiB, 12 * MiB, 100 * MiB) }).IsClean);

    [Fact]
    public void AConnectionWithoutALastCallbackIsALeak() => Assert.Equal(
        ["1 connections without an end instead of 0"], Leaks.Between(Start, Start with { Callbacks = Counts with { Closed = 6 } }));

    [Fact]
    public void ALastCallbackTooManyIsALeak() => Assert.Equal(
        ["11 ends of connections instead of 10"], Leaks.Between(Start, Start with { Callbacks = Counts with { Detached = 4 } }));

    [Fact]
    public void ASendThatNeverCompletesIsALeak() => Assert.Equal(
        ["2 sends that never complete instead of 0"], Leaks.Between(Start, Start with { Callbacks = Counts with { SendsEnded = 98 } }));

    [Fact]
    public void WhatTheCallbacksDidIsALineOfTheReport() => Assert.Contains(
        "callbacks: 10 opened, 7 closed, 3 detached, 100 of 100 sends and 49 of 50 wakes from other threads, 30 datagrams, 2 times out of threads, 5 exceptions on purpose",
        Report(Result(after: Start with { Callbacks = Counts })).Write(),
        StringComparison.Ordinal);

    [Fact]
    public void EverySchedulingModeTakesPart() => Assert.Equal(["adaptive", "inline", "threadpool"], Run.Modes);

    [Fact]
    public void KindsOfVisitsHaveNamesOfTheirOwn()
    {
        Assert.Distinct(Visit.Kinds.Select(static kind => kind.Name));
        Assert.Distinct(CallbackVisits.Kinds.Select(static kind => kind.Name));
    }

    private static ServerResult Result(IReadOnlyList<string>? errors = null, ServerState? after = null)
    {
        var tally = new Tally();
        tally.Verified(13);
        return new ServerResult("inline", tally, errors ?? [], Start, after ?? Start, new MemoryGrowth(MiB, 12 * MiB, 100 * MiB));
    }

    private static Report Report(params ServerResult[] servers) => new(42, TimeSpan.FromMinutes(2), servers);
}
