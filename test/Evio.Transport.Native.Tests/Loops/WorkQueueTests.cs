using System.Runtime.CompilerServices;
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
            _ = Take();
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
        Enqueue(2 * WorkQueue.MaxItemsPerPass);

        Assert.Equal(Enumerable.Range(0, 2 * WorkQueue.MaxItemsPerPass), TakeAll());
    }

    [Fact]
    public void What_comes_while_items_run_is_for_the_next_pass()
    {
        Enqueue(1);
        _queue.BeginPass();
        Assert.True(_queue.TryTake(out _));
        Enqueue(2);

        Assert.False(_queue.TryTake(out _));
        Assert.False(_queue.TryTake(out _));
        Assert.Equal(2, Take().Count);
    }

    [Fact]
    public void A_queue_is_closed_only_when_it_is_empty()
    {
        Enqueue(1);
        Assert.False(_queue.TryClose());
        Enqueue(1);
        _ = Take();

        Assert.True(_queue.TryClose());
    }

    [Fact]
    public void A_closed_queue_refuses_every_item()
    {
        Assert.True(_queue.TryClose());

        Assert.False(_queue.TryEnqueue(Item(1), out var mustWake));
        Assert.False(mustWake);
        Assert.Empty(Take());
    }

    [Fact]
    public void A_queue_that_ends_takes_only_the_reactors_own_items()
    {
        Enqueue(1);
        _queue.BeginEnd();

        Assert.False(_queue.TryEnqueue(Item(1), out _));
        Assert.True(_queue.TryEnqueue(Item(1), out _, acceptWhileEnding: true));
        Assert.Equal(2, Take().Count);
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
            Assert.Equal(Producers, Take().Count);
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

                foreach (var (_, state, _) in Take())
                {
                    var (producer, number) = ((int, int))state!;
                    Assert.Equal(next[producer]++, number);
                }
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

    [Fact]
    public void A_pass_takes_a_bounded_number_of_items()
    {
        Enqueue((2 * WorkQueue.MaxItemsPerPass) + 1);

        Assert.Equal(WorkQueue.MaxItemsPerPass, Take().Count);
        Assert.Equal(WorkQueue.MaxItemsPerPass, Take().Count);
        Assert.Single(Take());
        Assert.Empty(Take());
    }

    [Fact]
    public void What_a_pass_has_left_is_work()
    {
        Enqueue(WorkQueue.MaxItemsPerPass + 1);
        _ = Take();

        Assert.False(_queue.TryBlock());
        Assert.False(_queue.TryPark(Waiting.Limit));
        Assert.False(_queue.TryClose());
        Assert.Single(Take());
        Assert.True(_queue.TryBlock());
        Assert.True(_queue.TryClose());
    }

    [Fact]
    public void What_a_pass_has_left_comes_before_what_came_in_since()
    {
        Enqueue(WorkQueue.MaxItemsPerPass + 1);
        _ = Take();
        Assert.True(_queue.TryEnqueue(Item(-1), out _));

        Assert.Equal([WorkQueue.MaxItemsPerPass, -1], TakeAll());
    }

    [Fact]
    public void A_share_that_is_interrupted_goes_on_where_it_was()
    {
        Enqueue(3 * WorkQueue.MaxItemsPerPass);
        _queue.BeginPass();
        for (var i = 0; i < 10; i++)
        {
            Assert.True(_queue.TryTake(out _));
        }

        // As a thread that takes the loop over does: it begins no pass.
        var rest = new List<int>();
        while (_queue.TryTake(out var item))
        {
            rest.Add((int)item.State!);
        }

        Assert.Equal(Enumerable.Range(10, WorkQueue.MaxItemsPerPass - 10), rest);
        Assert.Equal(Enumerable.Range(WorkQueue.MaxItemsPerPass, 2 * WorkQueue.MaxItemsPerPass), TakeAll());
    }

    [Fact]
    public void The_room_of_a_burst_is_given_back()
    {
        Enqueue(100 * WorkQueue.MaxKeptCapacity);
        Assert.Equal(100 * WorkQueue.MaxKeptCapacity, TakeAll().Count);

        Assert.InRange(_queue.Capacity, 0, 2 * WorkQueue.MaxKeptCapacity);
    }

    [Fact]
    public void What_has_run_is_not_held_while_the_rest_waits()
    {
        var states = EnqueueObjects(WorkQueue.MaxItemsPerPass + 1);
        Run();

        GC.Collect();
        Assert.All(states[..^1], static state => Assert.False(state.IsAlive));
        Assert.True(states[^1].IsAlive);
        Run();
        GC.Collect();
        Assert.False(states[^1].IsAlive);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Whatever_is_done_each_item_runs_once_and_in_order(int seed)
    {
        var random = new Random(seed);
        var enqueued = 0;
        var ran = 0;
        for (var step = 0; step < 20_000; step++)
        {
            switch (random.Next(4))
            {
                case 0:
                    for (var count = random.Next(random.Next(4) == 0 ? 500 : 5); count > 0; count--)
                    {
                        Assert.True(_queue.TryEnqueue(Item(enqueued++), out var mustWake));
                        Assert.False(mustWake);
                    }

                    break;
                case 1:
                    _queue.BeginPass();
                    break;
                case 2:
                    for (var count = random.Next(100); count > 0 && _queue.TryTake(out var item); count--)
                    {
                        Assert.Equal(ran++, (int)item.State!);
                    }

                    break;
                default:
                    Assert.Equal(ran == enqueued, _queue.TryBlock());
                    _queue.SetAwake();
                    break;
            }
        }
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private WeakReference[] EnqueueObjects(int count) =>
        [.. Enumerable.Range(0, count).Select(_ =>
        {
            var state = new object();
            Assert.True(_queue.TryEnqueue(new WorkItem(static _ => { }, state), out var _));
            return new WeakReference(state);
        })];

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Run()
    {
        _queue.BeginPass();
        while (_queue.TryTake(out _))
        {
        }
    }

    /// <summary>What a pass takes.</summary>
    private List<WorkItem> Take()
    {
        var items = new List<WorkItem>();
        _queue.BeginPass();
        while (_queue.TryTake(out var item))
        {
            items.Add(item);
        }

        return items;
    }

    /// <summary>The numbers of what all passes take until nothing is left.</summary>
    private List<int> TakeAll()
    {
        var numbers = new List<int>();
        while (Take() is { Count: > 0 } items)
        {
            numbers.AddRange(items.Select(static item => (int)item.State!));
        }

        return numbers;
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
