namespace Exploration.Scenarios;

/// <summary>The explorer finds what it is made for, in classes that are broken on purpose.</summary>
public sealed class ExplorerTests
{
    [Fact]
    public void A_wake_up_is_lost_between_the_look_and_the_sleep()
    {
        var failure = Exploring.Find(run => Mailbox(run, lookAgain: false), departures: 1, random: 0, out _);
        Assert.NotNull(failure);
        Assert.Contains("a wake-up was lost", failure.Reason, StringComparison.Ordinal);

        // And again, as often as one likes.
        for (var i = 0; i < 3; i++)
        {
            Assert.Equal(failure, Exploring.Try(run => Mailbox(run, lookAgain: false), new ReplayedSchedule(failure.Schedule)));
        }

        Assert.Null(Exploring.Find(run => Mailbox(run, lookAgain: true), departures: 3, random: 100, out var schedules));
        Assert.InRange(schedules, 8, 1000);
    }

    [Fact]
    public void Chance_finds_a_lost_update_and_the_schedule_repeats_it()
    {
        var failure = Exploring.Find(Count, departures: 0, random: 50, out var schedules);
        Assert.NotNull(failure);
        Assert.Equal(1, schedules);
        Assert.Equal(failure, Exploring.Try(Count, new ReplayedSchedule(failure.Schedule)));
    }

    [Fact]
    public void Two_locks_in_two_orders_are_a_deadlock()
    {
        var failure = Exploring.Find(
            static run =>
            {
                var first = new Lock();
                var second = new Lock();
                run.Add("one", () => EnterBoth(first, second));
                run.Add("other", () => EnterBoth(second, first));
                run.Explore();
            },
            departures: 1,
            random: 0,
            out _);
        Assert.NotNull(failure);
        Assert.Contains("it is a deadlock", failure.Reason, StringComparison.Ordinal);
    }

    private static void EnterBoth(Lock outer, Lock inner)
    {
        lock (outer)
        {
            lock (inner)
            {
                Execution.Step("is inside");
            }
        }
    }

    /// <summary>Reads and writes, each for itself without fault, but not in one.</summary>
    private static void Count(Execution run)
    {
        var count = 0;
        run.Add("one", Increment);
        run.Add("other", Increment);
        run.Explore();
        Assert.Equal(2, count);

        void Increment() => Evio.Volatile.Write(ref count, Evio.Volatile.Read(ref count) + 1);
    }

    /// <summary>A sleeper that looks for mail before it sleeps, without the lock that the poster has.</summary>
    private static void Mailbox(Execution run, bool lookAgain)
    {
        var guard = new object();
        var mail = 0;
        run.Add("sleeper", () =>
        {
            if (Evio.Volatile.Read(ref mail) == 0)
            {
                lock (guard)
                {
                    if (!lookAgain || mail == 0)
                    {
                        Monitor.Wait(guard);
                    }
                }
            }
        });
        run.Add("poster", () =>
        {
            lock (guard)
            {
                mail++;
                Monitor.Pulse(guard);
            }
        });
        run.Explore();
        Assert.Equal(1, mail);
    }
}
