using System.Collections.Concurrent;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class WakeUpTests
{
    [Fact]
    public async Task Calls_of_many_threads_all_run_each_threads_in_its_order()
    {
        const int Producers = 4;
        const int Calls = 50_000;
        // Not adaptive: a call that another thread got past would run beside the next one.
        await using var group = new TestGroup(scheduling: LoopScheduling.Inline);
        var next = new int[Producers];
        var disorder = 0;
        using var done = new CountdownEvent(Producers);

        Waiting.InParallel(Producers, producer =>
        {
            for (var i = 0; i < Calls; i++)
            {
                Assert.True(group.Loops[0].TryPost(
                    state =>
                    {
                        var (from, number) = ((int, int))state!;
                        disorder += next[from]++ == number ? 0 : 1;
                        if (next[from] == Calls)
                        {
                            done.Signal();
                        }
                    }, (producer, i)));
            }
        });

        Assert.True(done.Wait(Waiting.Limit, CancellationToken.None), $"Only {next.Sum()} calls were made.");
        Assert.Equal(0, disorder);
    }

    [Fact]
    public async Task An_idle_loop_is_woken_by_every_call()
    {
        const int Rounds = 20_000;
        await using var group = new TestGroup();
        using var ran = new SemaphoreSlim(0);

        for (var i = 0; i < Rounds; i++)
        {
            Assert.True(group.Loops[0].TryPost(state => ran.Release(), null));
            ran.Await();
        }
    }

    [Fact]
    public async Task Two_loops_wake_each_other_for_as_long_as_they_like()
    {
        const int Rounds = 50_000;
        await using var group = new TestGroup(loops: 2);
        using var done = new ManualResetEventSlim();
        var count = 0;

        Serve(null);
        done.Await();

        void Serve(object? state)
        {
            if (++count < Rounds)
            {
                group.Loops[count % 2].TryPost(Serve, null);
            }
            else
            {
                done.Set();
            }
        }
    }

    [Fact]
    public async Task A_busy_loop_is_not_woken_by_any_call()
    {
        const int Threads = 4;
        const int Calls = 25_000;
        var (group, wakeUp) = CreateWithWakeUp();
        await using var _ = group;
        var ran = 0;
        ulong before;

        using (group.KeepBusy())
        {
            before = ProcessState.EventCounter(wakeUp);
            Waiting.InParallel(Threads, _ =>
            {
                for (var i = 0; i < Calls; i++)
                {
                    Assert.True(group.Loops[0].TryPost(_ => ran++, null));
                }
            });

            Assert.Equal(before, ProcessState.EventCounter(wakeUp));
        }

        await group.RunAsync(() => Assert.Equal(Threads * Calls, ran));

        // The barrier itself is one more call, which may have found the loop idle.
        Assert.InRange(ProcessState.EventCounter(wakeUp), before, before + 1);
    }

    [Fact]
    public async Task A_loops_calls_to_itself_cost_no_wake_up()
    {
        const int Calls = 10_000;
        var (group, wakeUp) = CreateWithWakeUp();
        await using var _ = group;
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await group.SettleAsync();
        var before = ProcessState.EventCounter(wakeUp);
        var count = 0;

        Post(null);
        await done.Task.Within();

        // One for the first call, from outside.
        Assert.InRange(ProcessState.EventCounter(wakeUp), before, before + 1);

        void Post(object? state)
        {
            if (++count == Calls)
            {
                done.SetResult();
            }
            else
            {
                Assert.True(group.Loops[0].TryPost(Post, null));
            }
        }
    }

    [Fact]
    public async Task An_idle_loop_is_woken_by_one_write()
    {
        const int Rounds = 1_000;
        var (group, wakeUp) = CreateWithWakeUp();
        await using var _ = group;
        await group.SettleAsync();
        var before = ProcessState.EventCounter(wakeUp);

        for (var i = 0; i < Rounds; i++)
        {
            await group.RunAsync(static () => { });
        }

        Assert.InRange(ProcessState.EventCounter(wakeUp) - before, 1ul, (ulong)Rounds);
    }

    [Fact]
    public async Task A_call_that_posts_itself_for_ever_does_not_starve_the_sockets()
    {
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group);
        using var stop = new CancellationTokenSource();
        Assert.True(group.Loops[0].TryPost(Again, null));

        var (client, handler) = server.Open();
        handler.ForgetEvents();
        client.Send([1]);

        Waiting.Until(() => handler.Seen.HasFlag(ReadyEvents.Readable));
        await stop.CancelAsync();

        void Again(object? state)
        {
            if (!stop.IsCancellationRequested)
            {
                group.Loops[0].TryPost(Again, null);
            }
        }
    }

    [Fact]
    public async Task A_loop_that_has_ended_refuses_calls_whoever_makes_them()
    {
        const int Rounds = 30;
        const int Producers = 3;
        for (var round = 0; round < Rounds; round++)
        {
            await using var group = new TestGroup();
            var loop = group.Loops[0];
            var accepted = 0;
            var ran = 0;
            var producers = Waiting.OnThread(() => Waiting.InParallel(Producers, _ =>
            {
                while (loop.TryPost(_ => Interlocked.Increment(ref ran), null))
                {
                    Interlocked.Increment(ref accepted);
                }
            }));
            Waiting.Until(() => Volatile.Read(ref accepted) > 10);

            await group.Group.DisposeAsync();
            await producers.Within();

            Assert.Equal(accepted, ran);
            Assert.False(loop.TryPost(static _ => { }, null));
        }
    }

    [Fact]
    public async Task A_call_that_posts_itself_until_it_is_refused_lets_its_loop_end()
    {
        var group = new TestGroup();
        var refused = false;
        Again(null);

        await group.DisposeAsync();

        Assert.True(refused);

        void Again(object? state) => refused = !group.Loops[0].TryPost(Again, null);
    }

    [Fact]
    public async Task What_a_call_throws_is_reported_and_the_loop_goes_on()
    {
        await using var group = new TestGroup();
        var thrown = new InvalidTimeZoneException();

        Assert.True(group.Loops[0].TryPost(_ => throw thrown, null));

        Assert.Same(thrown, group.NextUnhandled());
        await group.SettleAsync();
    }

    /// <summary>On epoll, whose eventfd counts the wake-ups; when to write one is not the poller's business.</summary>
    private static (TestGroup Group, int WakeUp) CreateWithWakeUp()
    {
        var before = EventDescriptors();
        var group = new TestGroup(poller: PollerKind.Epoll, scheduling: LoopScheduling.Inline);
        return (group, Assert.Single(EventDescriptors().Except(before)));

        static HashSet<int> EventDescriptors() =>
            [.. ProcessState.Descriptors().Where(static entry => entry.Value == "anon_inode:[eventfd]").Select(static entry => entry.Key)];
    }

    [Fact]
    public async Task A_loop_that_defers_polling_leaves_its_descriptors_alone_until_a_call_is_posted()
    {
        var order = new ConcurrentQueue<string>();
        using var noted = new SemaphoreSlim(0);
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group, OnReadable(() => Note("event")));
        var (client, _) = server.Open();

        // The event is there before the loop would wait...
        var deferring = new TaskCompletionSource<Thread>(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(group.Loops[0].TryPostInternal(
            _ =>
            {
                client.Send([1]);
                group.Loops[0].DeferPolling(Waiting.Limit);
                deferring.SetResult(Thread.CurrentThread);
            },
            null));
        var thread = await deferring.Task.Within();

        // ...and the call not before it does: a loop that has a call to make does not wait, but looks at its descriptors.
        Waiting.Until(() => thread.ThreadState.HasFlag(ThreadState.WaitSleepJoin));
        Assert.True(group.Loops[0].TryPost(_ => Note("call"), null));

        noted.Await();
        noted.Await();
        Assert.Equal(["call", "event"], order);

        void Note(string what)
        {
            order.Enqueue(what);
            noted.Release();
        }
    }

    [Fact]
    public async Task A_deferred_poll_ends_with_its_limit_and_with_the_next_timer()
    {
        using var readable = new SemaphoreSlim(0);
        await using var group = new TestGroup();
        await using var server = await Server.StartAsync(group, OnReadable(() => readable.Release()));
        var (client, _) = server.Open();

        await group.RunAsync(() => group.Loops[0].DeferPolling(TimeSpan.FromMilliseconds(1)));
        client.Send([1]);
        readable.Await();

        using var fired = new SemaphoreSlim(0);
        await group.RunAsync(() =>
        {
            group.Loops[0].Schedule(TimeSpan.FromMilliseconds(20), _ => fired.Release(), null);
            group.Loops[0].DeferPolling(TimeSpan.FromDays(1));
        });
        fired.Await();
    }

    [Fact]
    public async Task A_deferred_poll_puts_off_no_call_and_not_the_end()
    {
        const int Rounds = 5_000;
        await using var group = new TestGroup();
        using var ran = new SemaphoreSlim(0);

        for (var i = 0; i < Rounds; i++)
        {
            Assert.True(group.Loops[0].TryPost(
                _ =>
                {
                    group.Loops[0].DeferPolling(TimeSpan.FromDays(1));
                    ran.Release();
                },
                null));
            ran.Await();
        }
    }

    private static Func<StreamSocket, RecordingHandler> OnReadable(Action action) => socket => new RecordingHandler(socket)
    {
        Ready = (_, events) =>
        {
            if ((events & ReadyEvents.Readable) != 0)
            {
                action();
            }
        },
    };
}
