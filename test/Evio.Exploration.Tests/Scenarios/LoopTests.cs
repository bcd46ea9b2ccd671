using Evio.Transport.Native;
using Evio.Transport.Native.Loops;

namespace Exploration.Scenarios;

/// <summary>A loop's posted calls: each is made once, in the order of whoever posts them, and the loop sleeps through none.</summary>
public sealed class LoopTests
{
    [Fact]
    public void Calls_are_posted_while_the_loop_goes_to_sleep() => Exploring.Run(
        static run =>
        {
            var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
            var calls = new List<string>();
            run.Add("first", () => Post(group.Loops[0], calls, "a", "b"));
            run.Add("second", () => Post(group.Loops[0], calls, "1", "2"));
            run.Explore();
            Assert.Equal(["a", "b"], calls.Where(static call => char.IsLetter(call[0])));
            Assert.Equal(["1", "2"], calls.Where(static call => char.IsDigit(call[0])));
            End(run, group);
        },
        atLeast: 200,
        departures: 3);

    /// <summary>What a pass has left is work: the loop neither sleeps nor ends over it.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void More_calls_than_a_pass_makes_are_posted(bool stops) => Exploring.Run(
        run =>
        {
            var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
            var loop = group.Loops[0];
            var calls = new List<int>();
            var posted = 0;
            run.Add("many", () =>
            {
                while (posted < WorkQueue.MaxItemsPerPass + 2 && loop.TryPost(number => calls.Add((int)number!), posted))
                {
                    posted++;
                }
            });
            run.Add("other", () => stops ? group.DisposeAsync().AsTask() : Task.FromResult(loop.TryPost(_ => calls.Add(-1), null)));
            var begin = run.Now;
            run.Explore();
            End(run, group);
            Assert.Equal(begin, run.Now);
            Assert.Equal(Enumerable.Range(0, posted), calls.Where(static number => number >= 0));
            Assert.Equal(stops ? 0 : 1, calls.Count(static number => number < 0));
        },
        atLeast: 100,
        departures: 1);

    /// <summary>They leave the queue, although the loop has nothing else to do and an older timer is pending.</summary>
    [Fact]
    public void Many_timers_are_called_off_while_the_loop_goes_to_sleep() => Exploring.Run(
        static run =>
        {
            const int Count = TimerQueue.MaxCancelled + 8;
            var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
            var loop = group.Loops[0];
            var timers = new List<LoopTimer>();
            loop.TryPostInternal(
                _ =>
                {
                    for (var i = 0; i <= Count; i++)
                    {
                        timers.Add(loop.Schedule(TimeSpan.FromHours(i + 1), static _ => Assert.Fail("It is not due."), null));
                    }
                },
                null);
            Execution.WaitFor("the timers", () => timers.Count == Count + 1);
            foreach (var actor in (int[])[0, 1])
            {
                run.Add($"canceller {actor}", () =>
                {
                    for (var i = 1 + actor; i <= Count; i += 2)
                    {
                        timers[i].Cancel();
                    }

                    Execution.WaitFor("the queue", () => loop.TimerCount <= 1 + TimerQueue.MaxCancelled);
                });
            }

            var begin = run.Now;
            run.Explore();
            Assert.Equal(begin, run.Now);
            Assert.True(timers[0].IsPending);
            End(run, group);
        },
        atLeast: 100,
        departures: 1);

    /// <summary>A loop that waits for posted calls alone. Nothing here needs its time to be up.</summary>
    [Fact]
    public void Calls_are_posted_while_the_loop_parks() => Exploring.Run(
        static run =>
        {
            var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
            var loop = group.Loops[0];
            var calls = new List<string>();
            run.Add("first", () =>
            {
                loop.TryPostInternal(_ => loop.DeferPolling(TimeSpan.FromSeconds(1)), null);
                Post(loop, calls, "a", "b");
                Execution.WaitFor("the calls", () => calls.Contains("b"));
            });
            run.Add("second", () =>
            {
                Post(loop, calls, "1");
                Execution.WaitFor("the call", () => calls.Contains("1"));
            });
            var begin = run.Now;
            run.Explore();
            Assert.Equal(begin, run.Now);
            Assert.Equal(["a", "b"], calls.Where(static call => char.IsLetter(call[0])));
            Assert.Equal(3, calls.Count);
            End(run, group);
        },
        atLeast: 500,
        departures: 3);

    /// <summary>What a loop has accepted is done, and what it has not is never done; its wake-up is not written to after its end.</summary>
    [Fact]
    public void Calls_are_posted_while_the_loop_ends() => Exploring.Run(
        static run =>
        {
            var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
            var loop = group.Loops[0];
            var calls = new List<string>();
            var accepted = new List<string>();
            run.Add("poster", () =>
            {
                foreach (var call in (string[])["a", "b"])
                {
                    if (loop.TryPost(_ => calls.Add(call), null))
                    {
                        accepted.Add(call);
                    }
                }
            });
            run.Add("own", () =>
            {
                if (loop.TryPostWhileEnding(_ => calls.Add("1"), null))
                {
                    accepted.Add("1");
                }
            });
            run.Add("stopper", () => group.DisposeAsync().AsTask());
            run.Explore();
            Assert.Equal(accepted.Order(), calls.Order());
            Assert.Equal(calls.Where(static call => char.IsLetter(call[0])).Order(), calls.Where(static call => char.IsLetter(call[0])));
            Assert.Empty(run.Descriptors.StillOpen);
        },
        atLeast: 2000,
        departures: 3);

    [Fact]
    public void A_timer_is_made_and_called_off() => Exploring.Run(
        static run =>
        {
            var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
            var loop = group.Loops[0];
            var fired = new List<string>();
            run.Add("first", () =>
            {
                loop.Schedule(TimeSpan.FromMilliseconds(20), _ => fired.Add("late"), null);
                loop.Schedule(TimeSpan.FromMilliseconds(10), _ => fired.Add("early"), null);
                Execution.WaitFor("the timer", () => fired.Contains("late"));
            });
            run.Add("second", () =>
            {
                var timer = loop.Schedule(TimeSpan.FromMilliseconds(15), _ => fired.Add("cancelled"), null);
                timer.Cancel();
                Assert.False(timer.IsPending);
            });
            run.Explore();
            Assert.Equal(["early", "late"], fired);
            End(run, group);
        },
        atLeast: 500,
        departures: 3);

    /// <summary>Batches for the thread pool: no call is left behind by a worker that ends, and none needs the monitor to be found.</summary>
    [Fact]
    public void Calls_go_to_the_pool_in_batches() => Exploring.Run(
        static run =>
        {
            var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1, Scheduling = LoopScheduling.ThreadPool });
            var loop = group.Loops[0];
            var calls = new Call[3];
            for (var i = 0; i < calls.Length; i++)
            {
                calls[i] = new Call();
            }

            run.Add("first", () =>
            {
                loop.TryPostInternal(_ => loop.Invoke(calls[0]), null);
                loop.TryPostInternal(_ => loop.Invoke(calls[1]), null);
                Execution.WaitFor("the calls", () => calls[0].Runs > 0 && calls[1].Runs > 0);
            });
            run.Add("second", () =>
            {
                loop.TryPostInternal(_ => loop.Invoke(calls[2]), null);
                Execution.WaitFor("the call", () => calls[2].Runs > 0);
            });
            var begin = run.Now;
            run.Explore();
            Assert.Equal(begin, run.Now);
            Assert.All(calls, static call => Assert.Equal(1, call.Runs));
            End(run, group);
        },
        atLeast: 600,
        departures: 2);

    /// <summary>More calls than there are processors are expected to compute, and the loop may end at any moment: each is made once.</summary>
    [Theory]
    [InlineData(false, 100)]
    [InlineData(true, 300)]
    public void Calls_that_compute_wait_for_each_other(bool stops, int atLeast) => Exploring.Run(
        run =>
        {
            var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1, Scheduling = LoopScheduling.Adaptive });
            var loop = group.Loops[0];
            var calls = Enumerable.Range(0, Environment.ProcessorCount + 1).Select(static _ => new Call { Cost = LoopCallCost.CpuBound }).ToArray();
            var posted = 0;
            run.Add("poster", () =>
            {
                posted = calls.TakeWhile(loop.TryPost).Count();
                Execution.WaitFor("the calls", () => calls[..posted].All(static call => call.Runs > 0));
            });
            if (stops)
            {
                run.Add("stopper", () => group.DisposeAsync().AsTask());
            }

            run.Explore();
            Assert.True(stops || posted == calls.Length);
            Assert.All(calls[..posted], static call => Assert.Equal(1, call.Runs));
            End(run, group);
        },
        atLeast,
        departures: 2);

    /// <summary>A loop that could not be taken over keeps its thread, and is taken over when the system starts threads again.</summary>
    [Fact]
    public void The_system_starts_no_thread() => Exploring.Run(
        static run =>
        {
            var told = 0;
            var group = new EventLoopGroup(new EventLoopGroupOptions
            {
                LoopCount = 1,
                Scheduling = LoopScheduling.Adaptive,
                OnThreadStartFailed = reason =>
                {
                    Assert.IsAssignableFrom<OutOfMemoryException>(reason);
                    told++;
                },
            });
            var loop = group.Loops[0];
            var calls = new Call[3];
            for (var i = 0; i < calls.Length; i++)
            {
                calls[i] = new Call();
            }

            run.RefusesThreads = true;
            run.Add("poster", () =>
            {
                // It holds the loop until that does something else.
                var wentOn = false;
                loop.TryPost(
                    _ =>
                    {
                        Assert.True(loop.TryPost(_ => wentOn = true, null));
                        Execution.WaitFor("the loop goes on without it", () => wentOn);
                    },
                    null);
                Assert.All(calls[..2], call => Assert.True(loop.TryPost(call)));
                Execution.WaitFor("the calls", () => calls[..2].All(static call => call.Runs > 0));
            });
            run.Add("system", () =>
            {
                Execution.WaitFor("a refusal", () => told > 0);
                Execution.WaitForTime(TimeSpan.FromSeconds(1));
                Assert.Equal(0, calls[0].Runs);
                run.RefusesThreads = false;
            });
            run.Explore();
            Assert.Equal(1, told);
            Assert.True(loop.TryPost(calls[2]));
            Execution.WaitFor("the last call", () => calls[2].Runs > 0);
            Assert.All(calls, static call => Assert.Equal(1, call.Runs));
            End(run, group);
        },
        atLeast: 100,
        departures: 2);

    /// <summary>
    /// At the moment in which the monitor retakes the loop, its thread enters it, returns from its call, or hands it off; and the group may end. What belongs to the loop is one thread's at a time, and no call is
    /// made twice or left out.
    /// </summary>
    [Theory]
    [InlineData(LoopCallCost.Brief, false)]
    [InlineData(LoopCallCost.Brief, true)]
    [InlineData(LoopCallCost.Blocking, false)]
    [InlineData(LoopCallCost.Blocking, true)]
    public void A_loop_changes_hands_while_its_thread_enters_it(LoopCallCost cost, bool stops)
    {
        var (kept, lost) = (0, 0);
        Exploring.Run(
            run =>
            {
                var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1, Scheduling = LoopScheduling.Adaptive });
                var loop = group.Loops[0];
                var owner = 0;
                var posted = 0;
                Call[] calls = [.. Enumerable.Range(0, 2).Select(_ => new Call { Cost = cost, WhenRun = _ => TouchAndWait() })];
                run.Add("poster", () =>
                {
                    posted = calls.TakeWhile(loop.TryPost).Count();
                    loop.TryPostInternal(_ => Touch(), null);
                    Execution.WaitFor("the calls", () => calls[..posted].All(static call => call.Runs > 0));
                });
                if (stops)
                {
                    run.Add("stopper", () => group.DisposeAsync().AsTask());
                }

                run.Explore();
                Assert.True(stops || posted == calls.Length);
                Assert.All(calls[..posted], static call => Assert.Equal(1, call.Runs));
                End(run, group);

                void TouchAndWait()
                {
                    Touch();

                    // Until the monitor's second sample, which is taken at this moment; a little longer when the monitor has ended.
                    var until = run.Now + (2 * System.Diagnostics.Stopwatch.Frequency / 1000);
                    Execution.WaitForTime(TimeSpan.FromMilliseconds(3), unless: () => run.Now >= until);
                    Touch();
                }

                void Touch()
                {
                    using var entered = loop.Ownership.Enter();
                    if (!entered.IsOwner)
                    {
                        lost++;
                        return;
                    }

                    kept++;
                    Assert.Equal(0, owner);
                    owner = Environment.CurrentManagedThreadId;
                    Execution.Step("touches what is the loop's");
                    entered.Verify();
                    Assert.Equal(Environment.CurrentManagedThreadId, owner);
                    owner = 0;
                }
            },
            atLeast: 100,
            departures: 3);
        Assert.True(kept > 0 && lost > 0, $"{kept} times the owner's, {lost} times not: not both were explored.");
    }

    /// <summary>What calls leave is done by the thread that has made them: once where that makes all of them, and before the loop waits for anything.</summary>
    [Theory]
    [InlineData(LoopScheduling.Inline)]
    [InlineData(LoopScheduling.Adaptive)]
    [InlineData(LoopScheduling.ThreadPool)]
    public void What_calls_leave_is_done_after_the_last(LoopScheduling scheduling)
    {
        var fewest = int.MaxValue;
        Exploring.Run(
            run =>
            {
                var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1, Scheduling = scheduling });
                var loop = group.Loops[0];
                var left = new Dictionary<int, int>();
                var rests = 0;
                var rest = new Rest(Do);
                Call[] calls = [.. Enumerable.Range(0, 3).Select(_ => new Call { Rest = rest, WhenRun = Leave })];
                run.Add("poster", () =>
                {
                    foreach (var call in calls)
                    {
                        Assert.True(loop.TryPost(call));
                    }

                    Execution.WaitFor("what they leave", () => calls.All(static call => call.Runs > 0) && left.Values.Sum() == 0);
                });
                run.Explore();
                Assert.All(calls, static call => Assert.Equal(1, call.Runs));
                fewest = Math.Min(fewest, rests);
                End(run, group);

                // Also Execute: nothing is left there.
                void Leave(bool leaves)
                {
                    if (leaves)
                    {
                        left[Environment.CurrentManagedThreadId] = left.GetValueOrDefault(Environment.CurrentManagedThreadId) + 1;
                    }
                }

                void Do()
                {
                    Assert.InRange(left[Environment.CurrentManagedThreadId], 1, 3);
                    left[Environment.CurrentManagedThreadId] = 0;
                    rests++;
                }
            },
            atLeast: 20,
            departures: 2);
        Assert.Equal(1, fewest);
    }

    private static void Post(EventLoop loop, List<string> calls, params string[] names)
    {
        foreach (var name in names)
        {
            Assert.True(loop.TryPost(_ => calls.Add(name), null));
        }
    }

    private static void End(Execution run, EventLoopGroup group)
    {
        Execution.WaitFor("the loop's end", group.DisposeAsync());
        Assert.Empty(run.Descriptors.StillOpen);
    }

    private sealed class Call : ILoopCall
    {
        internal int Runs { get; private set; }

        internal IThreadPoolWorkItem? Rest { get; init; }

        /// <summary>Told of each time, and whether something is left then.</summary>
        internal Action<bool> WhenRun { get; init; } = static _ => { };

        public LoopCallCost Cost { get; set; }

        public IThreadPoolWorkItem? Run()
        {
            Make(leaves: true);
            return Rest;
        }

        public void Execute() => Make(leaves: false);

        private void Make(bool leaves)
        {
            Execution.Step("is called");
            WhenRun(leaves);
            Runs++;
        }
    }

    private sealed class Rest(Action action) : IThreadPoolWorkItem
    {
        public void Execute() => action();
    }
}
