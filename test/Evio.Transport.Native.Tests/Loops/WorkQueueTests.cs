using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class WorkQueueTests
{
    private readonly WorkQueue _queue = new();

    [Fact]
    public void A_new_queue_is_awake()
    {
        Assert.True(_queue.TryEnqueue(Item(1), out var mustWake));
        Assert.False(mustWake);
    }

    [Fact]
    public void Leave_to_block_is_given_when_there_is_no_work() => Assert.True(_queue.TryBlock());

    [Fact]
    public void Leave_to_block_is_refused_while_there_is_work()
    {
        Assert.True(_queue.TryEnqueue(Item(1), out _));

        Assert.False(_queue.TryBlock());

        // And the loop stays awake: it will look again.
        Assert.True(_queue.TryEnqueue(Item(2), out var mustWake));
        Assert.False(mustWake);
    }

    [Fact]
    public void Only_the_first_of_a_blocked_wait_has_to_wake()
    {
        Assert.True(_queue.TryBlock());

        Assert.Equal([true, false, false], Enqueue(3));
    }

    [Fact]
    public void Each_blocked_wait_is_woken_anew()
    {
        for (var i = 0; i < 3; i++)
        {
            Assert.True(_queue.TryBlock());
            Assert.Equal([true, false], Enqueue(2));
            _queue.SetAwake();
            _queue.Take().Clear();
        }
    }

    [Fact]
    public void A_wait_that_ended_by_itself_needs_no_wake_up()
    {
        Assert.True(_queue.TryBlock());
        _queue.SetAwake();

        Assert.Equal([false, false], Enqueue(2));
    }

    [Fact]
    public void Items_are_taken_in_the_order_they_came()
    {
        Enqueue(100);

        Assert.Equal(Enumerable.Range(0, 100), _queue.Take().Select(static item => (int)item.State!));
    }

    [Fact]
    public void What_comes_while_items_run_is_for_the_next_pass()
    {
        Enqueue(1);
        var taken = _queue.Take();
        Enqueue(2);

        Assert.Single(taken);
        taken.Clear();
        Assert.Equal(2, _queue.Take().Count);
    }

    [Fact]
    public void A_queue_is_closed_only_when_it_is_empty()
    {
        Enqueue(1);
        Assert.False(_queue.TryClose());
        Enqueue(1);
        _queue.Take().Clear();

        Assert.True(_queue.TryClose());
    }

    [Fact]
    public void A_closed_queue_refuses_every_item()
    {
        Assert.True(_queue.TryClose());

        Assert.False(_queue.TryEnqueue(Item(1), out var mustWake));
        Assert.False(mustWake);
        Assert.Empty(_queue.Take());
    }

    [Fact]
    public void A_queue_that_ends_takes_only_the_reactors_own_items()
    {
        Enqueue(1);
        _queue.BeginEnd();

        Assert.False(_queue.TryEnqueue(Item(1), out _));
        Assert.True(_queue.TryEnqueue(Item(1), out _, isOwn: true));
        Assert.Equal(2, _queue.Take().Count);
    }

    [Fact]
    public void A_queue_that_closes_while_blocked_asks_nobody_to_wake()
    {
        Assert.True(_queue.TryBlock());
        Assert.True(_queue.TryClose());

        Assert.False(_queue.TryEnqueue(Item(1), out var mustWake));
        Assert.False(mustWake);
    }

    [Fact]
    public void Of_many_producers_exactly_one_has_to_wake_each_blocked_wait()
    {
        const int Producers = 4;
        const int Rounds = 2_000;
        var wakes = 0;
        using var roundDone = new Barrier(Producers, _ =>
        {
            // The producers stand still here, so this is the loop's part of the round.
            Assert.Equal(1, Interlocked.Exchange(ref wakes, 0));
            _queue.SetAwake();
            var taken = _queue.Take();
            Assert.Equal(Producers, taken.Count);
            taken.Clear();
            Assert.True(_queue.TryBlock());
        });
        Assert.True(_queue.TryBlock());

        Waiting.InParallel(Producers, _ =>
        {
            for (var round = 0; round < Rounds; round++)
            {
                Assert.True(_queue.TryEnqueue(Item(round), out var mustWake));
                if (mustWake)
                {
                    Interlocked.Increment(ref wakes);
                }

                roundDone.Join();
            }
        });
    }

    [Fact]
    public void A_consumer_that_blocks_only_with_leave_misses_no_item()
    {
        const int Producers = 3;
        const int Items = 50_000;
        using var wakeUp = new SemaphoreSlim(0);
        var wakesWritten = 0;
        var waits = 0;
        var next = new int[Producers];

        var consumer = Waiting.OnThread(() =>
        {
            while (next.Any(static n => n < Items))
            {
                if (_queue.TryBlock())
                {
                    waits++;
                    wakeUp.Await();
                    _queue.SetAwake();
                }

                var taken = _queue.Take();
                foreach (var (_, state, _) in taken)
                {
                    var (producer, number) = ((int, int))state!;
                    Assert.Equal(next[producer]++, number);
                }

                taken.Clear();
            }
        });
        Waiting.InParallel(Producers, producer =>
        {
            for (var i = 0; i < Items; i++)
            {
                Assert.True(_queue.TryEnqueue(new WorkItem(static _ => { }, (producer, i)), out var mustWake));
                if (mustWake)
                {
                    Interlocked.Increment(ref wakesWritten);
                    wakeUp.Release();
                }
            }
        });

        Assert.True(((IAsyncResult)consumer).AsyncWaitHandle.WaitOne(Waiting.Limit), "The consumer waits for an item that it was not told of.");
        Assert.Null(consumer.Exception);
        Assert.Equal(waits, wakesWritten);
    }

    private static WorkItem Item(int number) => new(static _ => { }, number);

    private bool[] Enqueue(int count)
    {
        var mustWake = new bool[count];
        for (var i = 0; i < count; i++)
        {
            Assert.True(_queue.TryEnqueue(Item(i), out mustWake[i]));
        }

        return mustWake;
    }
}
