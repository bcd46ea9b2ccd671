using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

/// <summary>What others leave for later, and the monitor looks after.</summary>
public sealed class WatchTests
{
    public static TheoryData<LoopScheduling> Schedulings => [.. Enum.GetValues<LoopScheduling>()];

    [Theory]
    [MemberData(nameof(Schedulings))]
    public async Task It_is_looked_at_until_there_is_nothing_more_to_look_after(LoopScheduling scheduling)
    {
        await using var group = new TestGroup(scheduling: scheduling);
        var watched = new Watched(looks: 3);
        group.Loops[0].Watch(watched);
        AssertIsLookedAt(3, watched, group);
    }

    /// <summary>Whatever holds the loop does not keep the monitor from it.</summary>
    [Theory]
    [MemberData(nameof(Schedulings))]
    public async Task It_is_looked_at_while_the_loop_is_held(LoopScheduling scheduling)
    {
        await using var group = new TestGroup(scheduling: scheduling);
        using (group.KeepBusy())
        {
            var watched = new Watched(looks: 3);
            group.Loops[0].Watch(watched);
            Waiting.Until(() => watched.Looks == 3);
        }
    }

    [Theory]
    [MemberData(nameof(Schedulings))]
    public async Task What_is_watched_twice_is_looked_at_twice_as_often(LoopScheduling scheduling)
    {
        await using var group = new TestGroup(scheduling: scheduling);
        var twice = new Watched(looks: 10);
        group.Loops[0].Watch(twice);
        group.Loops[0].Watch(twice);

        // Each of the two ends for itself.
        AssertIsLookedAt(11, twice, group);
    }

    [Fact]
    public async Task What_it_throws_is_reported_once_and_it_is_looked_at_again()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Inline);
        var watched = new Watched(looks: 5) { Failures = 3 };
        group.Loops[0].Watch(watched);
        Waiting.Until(() => watched.Looks == 5);
        Assert.IsType<InvalidOperationException>(group.NextUnhandled());
    }

    [Fact]
    public async Task After_the_groups_end_nobody_looks()
    {
        var group = new TestGroup(scheduling: LoopScheduling.Inline);
        await group.DisposeAsync();
        var watched = new Watched(looks: 1);
        group.Loops[0].Watch(watched);
        Assert.Equal(0, watched.Looks);
    }

    /// <summary>So often, and no more while something else is looked at, after the monitor has gone to sleep or not.</summary>
    private static void AssertIsLookedAt(int times, Watched watched, TestGroup group)
    {
        Waiting.Until(() => watched.Looks == times);
        var other = new Watched(looks: 20);
        group.Loops[0].Watch(other);
        Waiting.Until(() => other.Looks == 20);
        Assert.Equal(times, watched.Looks);
    }

    private sealed class Watched(int looks) : IWatched
    {
        private int _looks;

        internal int Failures { get; init; }

        internal int Looks => Volatile.Read(ref _looks);

        public bool Check()
        {
            var number = Interlocked.Increment(ref _looks);
            if (number <= Failures)
            {
                throw new InvalidOperationException("A look failed.");
            }

            return number < looks;
        }
    }
}
