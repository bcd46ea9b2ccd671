using System.Buffers;
using System.IO.Pipelines;
using System.Text;
using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

/// <summary>
/// What a <see cref="PipeReader"/> promises, demanded of <see cref="Pipe"/> and of the transport's reader by the same bodies.
/// </summary>
public abstract class PipeReaderContractTests : IAsyncLifetime
{
    private ReaderEnds _ends = null!;

    private PipeReader Reader => _ends.Reader;

    private protected abstract ValueTask<ReaderEnds> CreateAsync();

    public async ValueTask InitializeAsync() => _ends = await CreateAsync();

    public async ValueTask DisposeAsync()
    {
        await _ends.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task A_read_returns_what_was_fed()
    {
        await FeedAsync("hello");

        var result = await Reader.ReadAsync().OrTimeout();

        Assert.Equal("hello", Text(result.Buffer));
        Assert.False(result.IsCanceled);
        Assert.False(result.IsCompleted);
        Reader.AdvanceTo(result.Buffer.End);
    }

    [Fact]
    public async Task A_read_waits_for_the_first_byte()
    {
        var read = Reader.ReadAsync().AsTask();
        Assert.False(read.IsCompleted);

        await FeedAsync("x");

        Assert.Equal("x", Text((await read.OrTimeout()).Buffer));
    }

    [Fact]
    public async Task A_read_after_everything_was_examined_waits_for_more()
    {
        await FeedAsync("abc");
        var first = await Reader.ReadAsync().OrTimeout();
        Reader.AdvanceTo(first.Buffer.Start, first.Buffer.End);

        var second = Reader.ReadAsync().AsTask();
        Assert.False(second.IsCompleted);
        await FeedAsync("d");

        Assert.Equal("abcd", Text((await second.OrTimeout()).Buffer));
    }

    [Fact]
    public async Task A_read_after_not_everything_was_examined_returns_at_once()
    {
        await FeedAsync("abcdef");
        var first = await Reader.ReadAsync().OrTimeout();
        Reader.AdvanceTo(first.Buffer.GetPosition(2), first.Buffer.GetPosition(5));

        var second = Reader.ReadAsync();

        Assert.True(second.IsCompletedSuccessfully);
        Assert.Equal("cdef", Text((await second).Buffer));
    }

    [Fact]
    public async Task A_read_after_part_was_consumed_and_the_rest_examined_waits_for_more()
    {
        await FeedAsync("abcdef");
        var first = await Reader.ReadAsync().OrTimeout();
        Reader.AdvanceTo(first.Buffer.GetPosition(4), first.Buffer.End);

        var second = Reader.ReadAsync().AsTask();
        Assert.False(second.IsCompleted);
        await FeedAsync("g");

        Assert.Equal("efg", Text((await second.OrTimeout()).Buffer));
    }

    [Fact]
    public async Task Advancing_by_consumed_alone_examines_no_more_than_that()
    {
        await FeedAsync("abc");
        var first = await Reader.ReadAsync().OrTimeout();
        Reader.AdvanceTo(first.Buffer.GetPosition(1));

        var second = Reader.ReadAsync();

        Assert.True(second.IsCompletedSuccessfully);
        Assert.Equal("bc", Text((await second).Buffer));
    }

    [Fact]
    public async Task Advancing_without_consuming_or_examining_gives_the_same_bytes_again()
    {
        await FeedAsync("abc");
        for (var i = 0; i < 3; i++)
        {
            var result = await Reader.ReadAsync().OrTimeout();
            Assert.Equal("abc", Text(result.Buffer));
            Reader.AdvanceTo(result.Buffer.Start);
        }
    }

    [Fact]
    public async Task Bytes_survive_many_rounds_of_consuming_one_at_a_time()
    {
        var sent = TestData.Bytes(10_000);
        var feed = FeedAsync(sent);
        var received = new List<byte>();
        while (received.Count < sent.Length)
        {
            var result = await Reader.ReadAsync().OrTimeout();
            received.Add(result.Buffer.FirstSpan[0]);
            Reader.AdvanceTo(result.Buffer.GetPosition(1));
        }

        await feed.OrTimeout();
        TestData.AssertSame(sent, received.ToArray());
    }

    [Fact]
    public async Task Unconsumed_input_accumulates_over_many_blocks()
    {
        var sent = TestData.Bytes(300_000);
        var feed = FeedAsync(sent);

        var result = await ReadUntilAsync(sent.Length);

        TestData.AssertSame(sent, result.Buffer.ToArray());
        Reader.AdvanceTo(result.Buffer.End);
        await feed.OrTimeout();
    }

    [Fact]
    public async Task Consuming_into_the_middle_of_a_later_block_keeps_the_rest()
    {
        var sent = TestData.Bytes(50_000);
        var feed = FeedAsync(sent);
        var result = await ReadUntilAsync(sent.Length);
        Reader.AdvanceTo(result.Buffer.GetPosition(33_333));
        await feed.OrTimeout();

        var rest = await Reader.ReadAsync().OrTimeout();

        TestData.AssertSame(sent.AsMemory(33_333), rest.Buffer.ToArray());
    }

    [Fact]
    public async Task Examining_everything_asks_for_more_even_beyond_the_buffer_limit()
    {
        var sent = TestData.Bytes((int)ReaderEnds.BufferLimit * 3);
        var feed = FeedAsync(sent);

        var result = await ReadUntilAsync(sent.Length);

        TestData.AssertSame(sent, result.Buffer.ToArray());
        Reader.AdvanceTo(result.Buffer.End);
        await feed.OrTimeout();
    }

    [Fact]
    public async Task A_buffer_stays_valid_until_it_is_advanced_over_while_more_arrives()
    {
        await FeedAsync("before");
        var first = await Reader.ReadAsync().OrTimeout();
        await FeedAsync(TestData.Bytes(20_000));

        Assert.Equal("before", Text(first.Buffer));
        Reader.AdvanceTo(first.Buffer.End);
        Assert.Equal(20_000, (await ReadUntilAsync(20_000)).Buffer.Length);
    }

    [Fact]
    public async Task A_cancelled_read_after_completion_is_refused()
    {
        await Reader.CompleteAsync();

        await Assert.ThrowsAsync<InvalidOperationException>(async () => await Reader.ReadAsync(new CancellationToken(canceled: true)));
    }

    [Fact]
    public void Advancing_before_any_read_throws() =>
        Assert.Throws<InvalidOperationException>(() => Reader.AdvanceTo(default));

    [Fact]
    public async Task Advancing_twice_for_one_read_throws()
    {
        await FeedAsync("abc");
        var result = await Reader.ReadAsync().OrTimeout();
        Reader.AdvanceTo(result.Buffer.Start);

        Assert.Throws<InvalidOperationException>(() => Reader.AdvanceTo(result.Buffer.Start));
    }

    [Fact]
    public async Task Examining_less_than_is_consumed_throws_and_changes_nothing()
    {
        await FeedAsync("abcdef");
        var result = await Reader.ReadAsync().OrTimeout();

        Assert.Throws<InvalidOperationException>(() => Reader.AdvanceTo(result.Buffer.GetPosition(4), result.Buffer.GetPosition(2)));

        Reader.AdvanceTo(result.Buffer.GetPosition(1));
        Assert.Equal("bcdef", Text((await Reader.ReadAsync().OrTimeout()).Buffer));
    }

    [Fact]
    public async Task Advancing_beyond_the_block_throws_at_the_latest_when_the_bytes_are_asked_for()
    {
        await FeedAsync("abc");
        var result = await Reader.ReadAsync().OrTimeout();
        var beyond = new SequencePosition(result.Buffer.End.GetObject(), 1_000_000);

        Assert.Throws<ArgumentOutOfRangeException>(() =>
        {
            Reader.AdvanceTo(beyond);
            Reader.TryRead(out _);
        });
    }

    [Fact]
    public async Task Reading_again_without_advancing_throws()
    {
        await FeedAsync("abc");
        await Reader.ReadAsync().OrTimeout();

        await Assert.ThrowsAsync<InvalidOperationException>(() => Reader.ReadAsync().OrTimeout());
        Assert.Throws<InvalidOperationException>(() => Reader.TryRead(out _));
    }

    [Fact]
    public async Task Reading_while_a_read_is_pending_throws()
    {
        _ = Reader.ReadAsync().AsTask();

        // What becomes of the first is left open: Pipe fails it as well.
        await Assert.ThrowsAsync<InvalidOperationException>(async () => await Reader.ReadAsync().OrTimeout());
    }

    [Fact]
    public async Task Advancing_for_a_cancelled_read_while_the_next_one_waits_harms_neither()
    {
        await FeedAsync("abc");
        var first = await ReadUntilAsync(3);
        Reader.AdvanceTo(first.Buffer.Start, first.Buffer.End);
        Reader.CancelPendingRead();
        var cancelled = await Reader.ReadAsync().OrTimeout();
        Assert.True(cancelled.IsCanceled);
        var next = Reader.ReadAsync().AsTask();
        Assert.False(next.IsCompleted);

        Reader.AdvanceTo(cancelled.Buffer.End);
        await FeedAsync("d");

        var result = await next.OrTimeout();
        Assert.Equal("d", Text(result.Buffer));
        Reader.AdvanceTo(result.Buffer.End);
        await AssertNextReadIsOrdinaryAsync();
    }

    /// <remarks>The second read may be refused, as long as the first one is being cancelled, or come back cancelled itself.</remarks>
    [Fact]
    public async Task A_read_after_one_that_was_cancelled_and_never_awaited_harms_nothing()
    {
        for (var i = 0; i < 200; i++)
        {
            using var source = new CancellationTokenSource();
            _ = Forget(Reader.ReadAsync(source.Token));
            var cancelling = Task.Run(source.Cancel);
            for (var attempts = 0; ; attempts++)
            {
                Assert.True(attempts < 1_000_000);
                try
                {
                    var next = Reader.ReadAsync();
                    Reader.CancelPendingRead();
                    Assert.True((await next.OrTimeout()).IsCanceled);
                    break;
                }
                catch (Exception exception) when (exception is InvalidOperationException or OperationCanceledException)
                {
                    await Task.Yield();
                }
            }

            await cancelling.OrTimeout();
        }

        await FeedAsync("abc");
        await Eventually.HoldsAsync(async () =>
        {
            var result = await Reader.ReadAsync().OrTimeout();
            Reader.AdvanceTo(result.Buffer.Start, result.Buffer.Start);
            return Text(result.Buffer) == "abc";
        });
    }

    [Fact]
    public async Task An_advance_that_is_refused_changes_nothing()
    {
        await FeedAsync("abcdef");
        var result = await ReadUntilAsync(6);
        var foreign = new ReadOnlySequence<byte>(new byte[3]);

        Assert.ThrowsAny<Exception>(() => Reader.AdvanceTo(new SequencePosition(result.Buffer.Start.GetObject(), -1), result.Buffer.End));
        Assert.ThrowsAny<Exception>(() => Reader.AdvanceTo(foreign.End, result.Buffer.End));

        Reader.AdvanceTo(result.Buffer.GetPosition(1));
        Assert.Equal("bcdef", Text((await Reader.ReadAsync().OrTimeout()).Buffer));
    }

    [Fact]
    public async Task TryRead_while_a_read_is_pending_throws_and_leaves_that_read_alone()
    {
        var pending = Reader.ReadAsync().AsTask();

        Assert.Throws<InvalidOperationException>(() => Reader.TryRead(out _));

        await FeedAsync("abc");
        Assert.Equal("abc", Text((await pending.OrTimeout()).Buffer));
    }

    [Fact]
    public void TryRead_finds_nothing_where_nothing_was_fed() => Assert.False(Reader.TryRead(out _));

    [Fact]
    public async Task TryRead_finds_what_was_fed()
    {
        await FeedAsync("abc");

        var result = await TryReadUntilFoundAsync();

        Assert.Equal("abc", Text(result.Buffer));
        Reader.AdvanceTo(result.Buffer.End);
        Assert.False(Reader.TryRead(out _));
    }

    [Fact]
    public async Task TryRead_finds_what_was_not_examined_and_only_that()
    {
        await FeedAsync("abc");
        var result = await Reader.ReadAsync().OrTimeout();
        Reader.AdvanceTo(result.Buffer.GetPosition(1), result.Buffer.GetPosition(2));

        Assert.True(Reader.TryRead(out result));
        Assert.Equal("bc", Text(result.Buffer));
        Reader.AdvanceTo(result.Buffer.Start, result.Buffer.End);
        Assert.False(Reader.TryRead(out _));
    }

    [Fact]
    public async Task A_read_works_after_TryRead_found_nothing()
    {
        Assert.False(Reader.TryRead(out _));
        var read = Reader.ReadAsync().AsTask();
        await FeedAsync("abc");

        Assert.Equal("abc", Text((await read.OrTimeout()).Buffer));
    }

    [Fact]
    public async Task TryRead_sees_the_end()
    {
        await EndAsync();

        var result = await TryReadUntilFoundAsync();

        Assert.True(result.IsCompleted);
        Assert.True(result.Buffer.IsEmpty);
    }

    [Fact]
    public async Task ReadAtLeast_waits_until_there_is_enough()
    {
        await FeedAsync("abc");
        var read = Reader.ReadAtLeastAsync(5).AsTask();
        await FeedAsync("d");
        Assert.False(read.IsCompleted);
        await FeedAsync("ef");

        var result = await read.OrTimeout();

        Assert.InRange(result.Buffer.Length, 5, 6);
        Assert.Equal("abcdef"[..(int)result.Buffer.Length], Text(result.Buffer));
    }

    [Fact]
    public async Task ReadAtLeast_returns_all_that_is_there_when_that_is_enough()
    {
        await FeedAsync("abcdef");

        Assert.Equal("abcdef", Text((await Reader.ReadAtLeastAsync(3).OrTimeout()).Buffer));
    }

    [Fact]
    public async Task ReadAtLeast_zero_waits_for_a_first_byte_like_a_plain_read()
    {
        var read = Reader.ReadAtLeastAsync(0).AsTask();
        Assert.False(read.IsCompleted);
        await FeedAsync("a");

        Assert.Equal("a", Text((await read.OrTimeout()).Buffer));
    }

    [Fact]
    public async Task ReadAtLeast_is_not_limited_by_the_buffer_limit()
    {
        var sent = TestData.Bytes((int)ReaderEnds.BufferLimit * 4);
        var feed = FeedAsync(sent);

        var result = await Reader.ReadAtLeastAsync(sent.Length).OrTimeout();

        TestData.AssertSame(sent, result.Buffer.ToArray());
        Reader.AdvanceTo(result.Buffer.End);
        await feed.OrTimeout();
    }

    [Fact]
    public async Task ReadAtLeast_returns_less_at_the_end()
    {
        await FeedAsync("abc");
        await EndAsync();

        var result = await Reader.ReadAtLeastAsync(100).OrTimeout();

        Assert.True(result.IsCompleted);
        Assert.Equal("abc", Text(result.Buffer));
    }

    [Fact]
    public async Task ReadAtLeast_returns_less_when_cancelled()
    {
        await FeedAsync("abc");
        var first = await Reader.ReadAsync().OrTimeout();
        Reader.AdvanceTo(first.Buffer.Start);
        var read = Reader.ReadAtLeastAsync(100).AsTask();

        Reader.CancelPendingRead();

        var result = await read.OrTimeout();
        Assert.True(result.IsCanceled);
        Assert.Equal("abc", Text(result.Buffer));
    }

    [Fact]
    public async Task ReadAtLeast_refuses_a_negative_size() =>
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => Reader.ReadAtLeastAsync(-1).OrTimeout());

    [Fact]
    public async Task CopyTo_a_stream_takes_everything_to_the_end()
    {
        var sent = TestData.Bytes(200_000);
        using var destination = new MemoryStream();
        var copy = Reader.CopyToAsync(destination);
        await FeedAsync(sent).OrTimeout();
        await EndAsync();
        await copy.OrTimeout();

        TestData.AssertSame(sent, destination.ToArray());
    }

    [Fact]
    public async Task CopyTo_a_writer_takes_everything_to_the_end()
    {
        var sent = TestData.Bytes(200_000);
        using var destination = new MemoryStream();
        var writer = PipeWriter.Create(destination);
        var copy = Reader.CopyToAsync(writer);
        await FeedAsync(sent).OrTimeout();
        await EndAsync();
        await copy.OrTimeout();

        TestData.AssertSame(sent, destination.ToArray());
    }

    [Fact]
    public async Task CopyTo_passes_the_destinations_failure_on()
    {
        var copy = Reader.CopyToAsync(new RefusingStream());
        await FeedAsync("abc");

        await Assert.ThrowsAsync<NotSupportedException>(() => copy.OrTimeout());
    }

    [Fact]
    public async Task CopyTo_ends_when_its_token_is_cancelled()
    {
        using var source = new CancellationTokenSource();
        var copy = Reader.CopyToAsync(Stream.Null, source.Token);

        await source.CancelAsync();

        var exception = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => copy.OrTimeout());
        Assert.Equal(source.Token, exception.CancellationToken);
    }

    [Fact]
    public async Task CopyTo_ends_when_the_pending_read_is_cancelled()
    {
        var copy = Reader.CopyToAsync(Stream.Null);

        Reader.CancelPendingRead();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => copy.OrTimeout());
    }

    [Fact]
    public async Task The_stream_over_the_reader_reads_everything_to_the_end()
    {
        var sent = TestData.Bytes(100_000);
        var feed = Task.Run(async () =>
        {
            await FeedAsync(sent);
            await EndAsync();
        });
        using var destination = new MemoryStream();
        await using var stream = Reader.AsStream();
        var buffer = new byte[777];
        for (int n; (n = await stream.ReadAsync(buffer).OrTimeout()) > 0;)
        {
            destination.Write(buffer, 0, n);
        }

        await feed.OrTimeout();
        TestData.AssertSame(sent, destination.ToArray());
        Assert.Equal(0, await stream.ReadAsync(buffer).OrTimeout());
    }

    [Fact]
    public async Task Disposing_the_stream_over_the_reader_completes_the_reader()
    {
        await Reader.AsStream().DisposeAsync();

        await Assert.ThrowsAsync<InvalidOperationException>(() => Reader.ReadAsync().OrTimeout());
    }

    [Fact]
    public async Task Disposing_the_stream_over_the_reader_can_leave_it_open()
    {
        await Reader.AsStream(leaveOpen: true).DisposeAsync();
        await FeedAsync("abc");

        Assert.Equal("abc", Text((await Reader.ReadAsync().OrTimeout()).Buffer));
    }

    [Fact]
    public async Task Cancelling_wakes_the_pending_read_once()
    {
        var read = Reader.ReadAsync().AsTask();

        Reader.CancelPendingRead();

        var result = await read.OrTimeout();
        Assert.True(result.IsCanceled);
        Assert.True(result.Buffer.IsEmpty);
        Assert.False(result.IsCompleted);
        Reader.AdvanceTo(result.Buffer.End);
        await AssertNextReadIsOrdinaryAsync();
    }

    [Fact]
    public async Task Cancelling_without_a_pending_read_marks_the_next_one_once()
    {
        Reader.CancelPendingRead();
        Reader.CancelPendingRead();

        var read = Reader.ReadAsync();
        Assert.True(read.IsCompletedSuccessfully);
        var result = await read;
        Assert.True(result.IsCanceled);
        Reader.AdvanceTo(result.Buffer.End);
        await AssertNextReadIsOrdinaryAsync();
    }

    [Fact]
    public async Task Cancelling_without_a_pending_read_marks_the_next_TryRead_once()
    {
        Reader.CancelPendingRead();

        Assert.True(Reader.TryRead(out var result));
        Assert.True(result.IsCanceled);
        Reader.AdvanceTo(result.Buffer.End);
        Assert.False(Reader.TryRead(out _));
        await AssertNextReadIsOrdinaryAsync();
    }

    [Fact]
    public async Task A_cancelled_read_gives_what_is_buffered()
    {
        await FeedAsync("abc");
        var first = await Reader.ReadAsync().OrTimeout();
        Reader.AdvanceTo(first.Buffer.Start, first.Buffer.End);
        var read = Reader.ReadAsync().AsTask();

        Reader.CancelPendingRead();

        var result = await read.OrTimeout();
        Assert.True(result.IsCanceled);
        Assert.Equal("abc", Text(result.Buffer));
    }

    [Fact]
    public async Task A_cancelled_read_loses_nothing_that_comes_after_it()
    {
        var read = Reader.ReadAsync().AsTask();
        Reader.CancelPendingRead();
        Reader.AdvanceTo((await read.OrTimeout()).Buffer.End);

        await FeedAsync("abc");

        Assert.Equal("abc", Text((await Reader.ReadAsync().OrTimeout()).Buffer));
    }

    [Fact]
    public async Task Cancelling_from_many_threads_never_loses_a_byte_or_a_wake_up()
    {
        var sent = TestData.Bytes(100_000);
        using var stop = new CancellationTokenSource();
        var cancelling = Task.Run(async () =>
        {
            while (!stop.IsCancellationRequested)
            {
                Reader.CancelPendingRead();
                await Task.Yield();
            }
        });
        var feed = FeedAsync(sent, pieces: 1000);

        var received = new List<byte>();
        while (received.Count < sent.Length)
        {
            var result = await Reader.ReadAsync().OrTimeout();
            received.AddRange(result.Buffer.ToArray());
            Reader.AdvanceTo(result.Buffer.End);
        }

        await stop.CancelAsync();
        await cancelling.OrTimeout();
        await feed.OrTimeout();
        TestData.AssertSame(sent, received.ToArray());
    }

    [Fact]
    public async Task A_cancelled_token_refuses_the_read_and_takes_no_data()
    {
        await FeedAsync("abc");

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Reader.ReadAsync(new CancellationToken(true)).OrTimeout());

        Assert.Equal("abc", Text((await Reader.ReadAsync().OrTimeout()).Buffer));
    }

    [Fact]
    public async Task A_token_cancels_the_pending_read_and_the_reader_goes_on()
    {
        using var source = new CancellationTokenSource();
        var read = Reader.ReadAsync(source.Token).AsTask();

        await source.CancelAsync();

        var exception = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => read.OrTimeout());
        Assert.Equal(source.Token, exception.CancellationToken);
        await AssertNextReadIsOrdinaryAsync();
    }

    [Fact]
    public async Task A_token_cancelled_after_its_read_has_no_effect_on_later_reads()
    {
        using var source = new CancellationTokenSource();
        var read = Reader.ReadAsync(source.Token).AsTask();
        await FeedAsync("abc");
        Reader.AdvanceTo((await read.OrTimeout()).Buffer.End);

        var next = Reader.ReadAsync().AsTask();
        await source.CancelAsync();
        Assert.False(next.IsCompleted);
        await FeedAsync("def");

        var result = await next.OrTimeout();
        Assert.False(result.IsCanceled);
        Assert.Equal("def", Text(result.Buffer));
    }

    [Fact]
    public async Task The_end_comes_with_what_is_left()
    {
        await FeedAsync("abc");
        await EndAsync();

        var result = await ReadToEndAsync();

        Assert.Equal("abc", Text(result.Buffer));
        Reader.AdvanceTo(result.Buffer.GetPosition(1), result.Buffer.End);
        result = await Reader.ReadAsync().OrTimeout();
        Assert.True(result.IsCompleted);
        Assert.Equal("bc", Text(result.Buffer));
        Reader.AdvanceTo(result.Buffer.End);
        result = await Reader.ReadAsync().OrTimeout();
        Assert.True(result.IsCompleted);
        Assert.True(result.Buffer.IsEmpty);
    }

    [Fact]
    public async Task The_end_wakes_a_pending_read()
    {
        var read = Reader.ReadAsync().AsTask();

        await EndAsync();

        var result = await read.OrTimeout();
        Assert.True(result.IsCompleted);
        Assert.False(result.IsCanceled);
        Assert.True(result.Buffer.IsEmpty);
    }

    [Fact]
    public async Task The_end_is_seen_by_every_later_read()
    {
        await EndAsync();
        for (var i = 0; i < 3; i++)
        {
            var result = await Reader.ReadAsync().OrTimeout();
            Assert.True(result.IsCompleted);
            Reader.AdvanceTo(result.Buffer.End);
        }
    }

    [Fact]
    public async Task The_end_after_a_large_input_loses_nothing()
    {
        var sent = TestData.Bytes((int)ReaderEnds.BufferLimit * 5);
        var feed = Task.Run(async () =>
        {
            await FeedAsync(sent);
            await EndAsync();
        });

        var result = await ReadToEndAsync();

        await feed.OrTimeout();
        TestData.AssertSame(sent, result.Buffer.ToArray());
    }

    [Fact]
    public async Task Nothing_can_be_read_after_completion()
    {
        await FeedAsync("abc");
        var result = await Reader.ReadAsync().OrTimeout();
        await Reader.CompleteAsync();

        await Assert.ThrowsAsync<InvalidOperationException>(() => Reader.ReadAsync().OrTimeout());
        Assert.Throws<InvalidOperationException>(() => Reader.TryRead(out _));
        Assert.Throws<InvalidOperationException>(() => Reader.AdvanceTo(result.Buffer.End));
    }

    [Fact]
    public async Task Completing_twice_or_cancelling_afterwards_is_harmless()
    {
        await FeedAsync("abc");
        await Reader.ReadAsync().OrTimeout();

        Reader.Complete();
        Reader.Complete();
        Reader.Complete(new InvalidDataException());
        await Reader.CompleteAsync();
        Reader.CancelPendingRead();

        await Assert.ThrowsAsync<InvalidOperationException>(() => Reader.ReadAsync().OrTimeout());
    }

    [Fact]
    public async Task Continuations_may_read_again_from_where_they_run()
    {
        // No OrTimeout around the reads: on an inline transport every turn of this loop stays on the thread that completed the last one.
        var sent = TestData.Bytes(500_000);
        var reading = Task.Run(async () =>
        {
            using var received = new MemoryStream();
            while (true)
            {
                var result = await Reader.ReadAsync();
                foreach (var segment in result.Buffer)
                {
                    received.Write(segment.Span);
                }

                Reader.AdvanceTo(result.Buffer.End);
                if (result.IsCompleted)
                {
                    return received.ToArray();
                }
            }
        });
        await FeedAsync(sent, pieces: 250).OrTimeout();
        await EndAsync();

        TestData.AssertSame(sent, await reading.OrTimeout());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Any_mixture_of_operations_yields_exactly_what_was_fed(int round)
    {
        var seed = unchecked(TestData.NewSeed() + round);
        var random = new Random(seed);
        var sent = TestData.Bytes(random.Next(1, 700_000), seed);
        var feed = Task.Run(async () =>
        {
            var feeding = new Random(~seed);
            for (var offset = 0; offset < sent.Length;)
            {
                var count = Math.Min(sent.Length - offset, feeding.Next(4) == 0 ? feeding.Next(1, 50_000) : feeding.Next(1, 500));
                await FeedAsync(sent.AsMemory(offset, count));
                offset += count;
            }

            await EndAsync();
        });

        var received = new MemoryStream();
        long examined = 0;
        for (var ended = false; !ended;)
        {
            if (random.Next(10) == 0)
            {
                Reader.CancelPendingRead();
            }

            ReadResult result;
            switch (random.Next(4))
            {
                case 0 when Reader.TryRead(out result):
                    break;
                case 1:
                    result = await Reader.ReadAtLeastAsync(random.Next(100_000)).OrTimeout();
                    break;
                default:
                    result = await Reader.ReadAsync().OrTimeout();
                    break;
            }

            TestData.AssertSame(sent.AsMemory((int)received.Length, (int)result.Buffer.Length), result.Buffer.ToArray());
            var consume = result.IsCompleted || random.Next(3) == 0 ? result.Buffer.Length : random.NextInt64(result.Buffer.Length + 1);
            var consumed = result.Buffer.GetPosition(consume);
            var examine = Math.Max(received.Length + consume, examined);
            examine = random.NextInt64(examine, received.Length + result.Buffer.Length + 1);
            var examinedPosition = result.Buffer.GetPosition(examine - received.Length);
            foreach (var segment in result.Buffer.Slice(0, consume))
            {
                received.Write(segment.Span);
            }

            examined = examine;
            ended = result.IsCompleted;
            Reader.AdvanceTo(consumed, examinedPosition);
        }

        await feed.OrTimeout();
        TestData.AssertSame(sent, received.ToArray());
    }

    private static string Text(in ReadOnlySequence<byte> buffer) => Encoding.ASCII.GetString(buffer);

    private Task FeedAsync(ReadOnlyMemory<byte> bytes) => _ends.FeedAsync(bytes);

    private Task FeedAsync(string text) => FeedAsync(Encoding.ASCII.GetBytes(text)).OrTimeout();

    private async Task FeedAsync(byte[] bytes, int pieces)
    {
        foreach (var piece in bytes.Chunk(bytes.Length / pieces))
        {
            await FeedAsync(piece);
        }
    }

    private Task EndAsync() => _ends.EndAsync().OrTimeout();

    /// <summary>What a caller does who neither awaits a task nor looks at it.</summary>
    private static bool Forget(ValueTask<ReadResult> task) => task.GetHashCode() != 0;

    private async Task<ReadResult> ReadUntilAsync(long length)
    {
        while (true)
        {
            var result = await Reader.ReadAsync().OrTimeout();
            if (result.Buffer.Length >= length)
            {
                return result;
            }

            Assert.False(result.IsCompleted, $"The input ended after {result.Buffer.Length} of {length} bytes.");
            Reader.AdvanceTo(result.Buffer.Start, result.Buffer.End);
        }
    }

    private async Task<ReadResult> ReadToEndAsync()
    {
        while (true)
        {
            var result = await Reader.ReadAsync().OrTimeout();
            if (result.IsCompleted)
            {
                return result;
            }

            Reader.AdvanceTo(result.Buffer.Start, result.Buffer.End);
        }
    }

    private async Task<ReadResult> TryReadUntilFoundAsync()
    {
        ReadResult result = default;
        await Eventually.HoldsAsync(() => Reader.TryRead(out result));
        return result;
    }

    private async Task AssertNextReadIsOrdinaryAsync()
    {
        var read = Reader.ReadAsync().AsTask();
        Assert.False(read.IsCompleted);
        await FeedAsync("next");
        var result = await read.OrTimeout();
        Assert.False(result.IsCanceled);
        Assert.Equal("next", Text(result.Buffer));
    }

    private sealed class RefusingStream : MemoryStream
    {
        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            ValueTask.FromException(new NotSupportedException());
    }
}
