using System.Buffers;
using System.IO.Pipelines;
using System.Text;
using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

/// <summary>
/// What a <see cref="PipeWriter"/> promises, demanded of <see cref="Pipe"/> and of the transport's writer by the same bodies.
/// </summary>
public abstract class PipeWriterContractTests : IAsyncLifetime
{
    private WriterEnds _ends = null!;

    private PipeWriter Writer => _ends.Writer;

    private protected abstract ValueTask<WriterEnds> CreateAsync();

    public async ValueTask InitializeAsync() => _ends = await CreateAsync();

    public async ValueTask DisposeAsync()
    {
        await _ends.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task A_write_arrives()
    {
        var result = await Writer.WriteAsync("hello"u8.ToArray()).OrTimeout();

        Assert.False(result.IsCanceled);
        Assert.False(result.IsCompleted);
        Assert.Equal("hello", await DrainTextAsync(5));
    }

    [Fact]
    public async Task An_empty_write_completes_and_adds_nothing()
    {
        var result = await Writer.WriteAsync(ReadOnlyMemory<byte>.Empty).OrTimeout();
        await Writer.WriteAsync("x"u8.ToArray()).OrTimeout();

        Assert.False(result.IsCompleted);
        Assert.Equal("x", await DrainTextAsync(1));
    }

    [Fact]
    public async Task A_write_goes_behind_what_was_advanced_before_it()
    {
        Append("ab");
        await Writer.WriteAsync("cd"u8.ToArray()).OrTimeout();

        Assert.Equal("abcd", await DrainTextAsync(4));
    }

    [Fact]
    public async Task A_flush_with_nothing_to_send_completes()
    {
        for (var i = 0; i < 3; i++)
        {
            var result = await Writer.FlushAsync().OrTimeout();
            Assert.False(result.IsCanceled);
            Assert.False(result.IsCompleted);
        }

        await Writer.WriteAsync("x"u8.ToArray()).OrTimeout();
        Assert.Equal("x", await DrainTextAsync(1));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(4095)]
    [InlineData(4096)]
    [InlineData(4097)]
    [InlineData(100_000)]
    public async Task Memory_is_at_least_as_long_as_asked_and_all_of_it_can_be_used(int sizeHint)
    {
        var memory = Writer.GetMemory(sizeHint);
        Assert.True(memory.Length >= Math.Max(sizeHint, 1));
        var sent = TestData.Bytes(memory.Length);
        sent.CopyTo(memory);
        Writer.Advance(memory.Length);
        var flush = Writer.FlushAsync().AsTask();

        TestData.AssertSame(sent, await _ends.DrainAsync(sent.Length).OrTimeout());
        await flush.OrTimeout();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(4095)]
    [InlineData(4096)]
    [InlineData(4097)]
    [InlineData(100_000)]
    public async Task A_span_is_at_least_as_long_as_asked_and_all_of_it_can_be_used(int sizeHint)
    {
        var sent = FillSpan(sizeHint);
        var flush = Writer.FlushAsync().AsTask();

        TestData.AssertSame(sent, await _ends.DrainAsync(sent.Length).OrTimeout());
        await flush.OrTimeout();
    }

    [Fact]
    public async Task Memory_may_be_asked_for_again_without_using_it()
    {
        Writer.GetMemory(10).Span.Fill((byte)'?');
        Writer.GetMemory(50_000).Span.Fill((byte)'?');
        Writer.GetSpan().Fill((byte)'?');
        Append("right");
        await Writer.FlushAsync().OrTimeout();

        Assert.Equal("right", await DrainTextAsync(5));
    }

    [Fact]
    public async Task Pieces_of_any_size_without_a_flush_between_them_stay_in_order()
    {
        var sent = new MemoryStream();
        foreach (var size in new[] { 1, 4000, 200, 4096, 1, 9000, 3, 4095, 2, 30_000, 5 })
        {
            var piece = TestData.Bytes(size, seed: size);
            Append(piece);
            sent.Write(piece);
        }

        Assert.Equal(sent.Length, Writer.UnflushedBytes);
        var flush = Writer.FlushAsync().AsTask();
        TestData.AssertSame(sent.ToArray(), await _ends.DrainAsync((int)sent.Length).OrTimeout());
        await flush.OrTimeout();
    }

    [Fact]
    public async Task Less_may_be_advanced_than_was_given()
    {
        for (var i = 0; i < 10_000; i++)
        {
            Writer.GetMemory(100).Span[0] = (byte)i;
            Writer.Advance(1);
        }

        await Writer.FlushAsync().OrTimeout();

        TestData.AssertSame(Enumerable.Range(0, 10_000).Select(static i => (byte)i).ToArray(), await _ends.DrainAsync(10_000).OrTimeout());
    }

    [Fact]
    public void A_negative_size_is_refused()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => Writer.GetMemory(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => GetSpanLength(-1));
    }

    [Fact]
    public async Task Advancing_beyond_the_memory_is_refused_and_harms_nothing()
    {
        var memory = Writer.GetMemory(10);
        "ok"u8.CopyTo(memory.Span);

        Assert.Throws<ArgumentOutOfRangeException>(() => Writer.Advance(memory.Length + 1));
        Assert.Throws<ArgumentOutOfRangeException>(() => Writer.Advance(-1));

        Writer.Advance(2);
        await Writer.FlushAsync().OrTimeout();
        Assert.Equal("ok", await DrainTextAsync(2));
    }

    [Fact]
    public void Advancing_without_memory_is_refused() => Assert.Throws<ArgumentOutOfRangeException>(() => Writer.Advance(1));

    [Fact]
    public void Advancing_by_nothing_is_harmless() => Writer.Advance(0);

    [Fact]
    public async Task Unflushed_bytes_are_counted()
    {
        Assert.True(Writer.CanGetUnflushedBytes);
        Assert.Equal(0, Writer.UnflushedBytes);
        Append(new byte[10]);
        Assert.Equal(10, Writer.UnflushedBytes);
        Append(new byte[5000]);
        Assert.Equal(5010, Writer.UnflushedBytes);

        await Writer.FlushAsync().OrTimeout();
        Assert.Equal(0, Writer.UnflushedBytes);

        await Writer.WriteAsync(new byte[100]).OrTimeout();
        Assert.Equal(0, Writer.UnflushedBytes);
    }

    [Fact]
    public async Task A_write_larger_than_every_buffer_arrives_whole()
    {
        var sent = TestData.Bytes(5_000_000);
        var write = Writer.WriteAsync(sent).AsTask();

        TestData.AssertSame(sent, await _ends.DrainAsync(sent.Length).OrTimeout());
        await write.OrTimeout();
    }

    [Fact]
    public async Task A_written_array_may_be_reused_once_the_write_has_completed()
    {
        var piece = TestData.Bytes(3000);
        await Writer.WriteAsync(piece).OrTimeout();
        Array.Clear(piece);
        await Writer.WriteAsync(piece).OrTimeout();

        TestData.AssertSame(TestData.Bytes(3000).Concat(piece).ToArray(), await _ends.DrainAsync(6000).OrTimeout());
    }

    [Fact]
    public async Task A_flush_waits_while_the_peer_does_not_read_and_goes_on_when_it_does()
    {
        var sent = TestData.Bytes(WriterEnds.MoreThanFits);
        var flush = Writer.WriteAsync(sent).AsTask();
        Assert.False(flush.IsCompleted);

        var start = await _ends.DrainAsync(1_000_000).OrTimeout();
        Assert.False(flush.IsCompleted);

        // The last quarter of the limit may remain unread: a flush goes on when half of the limit is free.
        var middle = await _ends.DrainAsync(sent.Length - start.Length - (int)(WriterEnds.WriteLimit / 4)).OrTimeout();
        var result = await flush.OrTimeout();
        Assert.False(result.IsCanceled);
        Assert.False(result.IsCompleted);

        var end = await _ends.DrainAsync((int)(WriterEnds.WriteLimit / 4)).OrTimeout();
        TestData.AssertSame(sent, start.Concat(middle).Concat(end).ToArray());
    }

    [Fact]
    public async Task A_flush_below_the_limit_does_not_wait_for_the_peer()
    {
        var result = await Writer.WriteAsync(TestData.Bytes((int)WriterEnds.WriteLimit - 1)).OrTimeout();

        Assert.False(result.IsCanceled);
        Assert.False(result.IsCompleted);
    }

    [Fact]
    public async Task A_cancelled_token_refuses_the_flush_and_keeps_the_bytes_for_the_next()
    {
        Append("abc");

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Writer.FlushAsync(new CancellationToken(true)).OrTimeout());

        Assert.Equal(3, Writer.UnflushedBytes);
        await Writer.FlushAsync().OrTimeout();
        Assert.Equal("abc", await DrainTextAsync(3));
    }

    [Fact]
    public async Task A_cancelled_token_refuses_the_write_and_none_of_it_is_sent()
    {
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => Writer.WriteAsync("no"u8.ToArray(), new CancellationToken(true)).OrTimeout());

        Assert.Equal(0, Writer.UnflushedBytes);
        await Writer.WriteAsync("yes"u8.ToArray()).OrTimeout();
        Assert.Equal("yes", await DrainTextAsync(3));
    }

    [Fact]
    public async Task A_token_ends_the_waiting_of_a_paused_flush_but_not_its_sending()
    {
        using var source = new CancellationTokenSource();
        var sent = TestData.Bytes(WriterEnds.MoreThanFits);
        var flush = Writer.WriteAsync(sent, source.Token).AsTask();

        await source.CancelAsync();

        var exception = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => flush.OrTimeout());
        Assert.Equal(source.Token, exception.CancellationToken);
        await AssertFlushIsPausedUntilDrainedAsync(sent);
    }

    [Fact]
    public async Task A_token_cancelled_after_its_flush_has_no_effect_on_later_flushes()
    {
        using var source = new CancellationTokenSource();
        await Writer.WriteAsync("a"u8.ToArray(), source.Token).OrTimeout();
        await source.CancelAsync();

        var result = await Writer.WriteAsync("b"u8.ToArray()).OrTimeout();

        Assert.False(result.IsCanceled);
        Assert.Equal("ab", await DrainTextAsync(2));
    }

    [Fact]
    public async Task Cancelling_ends_the_waiting_of_a_paused_flush_once_but_not_its_sending()
    {
        var sent = TestData.Bytes(WriterEnds.MoreThanFits);
        var flush = Writer.WriteAsync(sent).AsTask();

        Writer.CancelPendingFlush();

        var result = await flush.OrTimeout();
        Assert.True(result.IsCanceled);
        Assert.False(result.IsCompleted);
        await AssertFlushIsPausedUntilDrainedAsync(sent);
    }

    [Fact]
    public async Task Cancelling_without_a_paused_flush_marks_the_next_one_once_and_its_bytes_are_sent()
    {
        Writer.CancelPendingFlush();
        Writer.CancelPendingFlush();

        Assert.True((await Writer.WriteAsync("ab"u8.ToArray()).OrTimeout()).IsCanceled);
        Assert.False((await Writer.WriteAsync("cd"u8.ToArray()).OrTimeout()).IsCanceled);
        Assert.Equal("abcd", await DrainTextAsync(4));
    }

    [Fact]
    public async Task Cancelling_from_another_thread_never_loses_a_byte_or_a_wake_up()
    {
        var sent = TestData.Bytes(3_000_000);
        using var stop = new CancellationTokenSource();
        var cancelling = Task.Run(async () =>
        {
            while (!stop.IsCancellationRequested)
            {
                Writer.CancelPendingFlush();
                await Task.Yield();
            }
        });
        var drain = _ends.DrainAsync(sent.Length);

        foreach (var piece in sent.Chunk(10_000))
        {
            Assert.False((await Writer.WriteAsync(piece).OrTimeout()).IsCompleted);
        }

        await stop.CancelAsync();
        await cancelling.OrTimeout();
        TestData.AssertSame(sent, await drain.OrTimeout());
    }

    [Fact]
    public async Task Flushing_while_a_flush_is_paused_throws()
    {
        _ = Writer.WriteAsync(TestData.Bytes(WriterEnds.MoreThanFits)).AsTask();

        // What becomes of the first is left open: Pipe fails it as well.
        await Assert.ThrowsAsync<InvalidOperationException>(async () => await Writer.FlushAsync().OrTimeout());
    }

    [Fact]
    public async Task A_flush_after_one_that_was_cancelled_and_never_awaited_harms_nothing()
    {
        var sent = TestData.Bytes(WriterEnds.MoreThanFits);
        _ = Forget(Writer.WriteAsync(sent));
        for (var i = 0; i < 500; i++)
        {
            Writer.CancelPendingFlush();
            _ = Forget(Writer.FlushAsync());
        }

        Writer.CancelPendingFlush();
        var last = Writer.FlushAsync();
        Writer.CancelPendingFlush();
        Assert.True((await last.OrTimeout()).IsCanceled);
        TestData.AssertSame(sent, await _ends.DrainAsync(sent.Length).OrTimeout());
        await Writer.WriteAsync("x"u8.ToArray()).OrTimeout();
        Assert.Equal("x", await DrainTextAsync(1));
    }

    [Fact]
    public async Task Nothing_can_be_written_after_completion()
    {
        await Writer.CompleteAsync();

        Assert.Throws<InvalidOperationException>(() => Writer.GetMemory());
        Assert.Throws<InvalidOperationException>(() => GetSpanLength(0));
        await Assert.ThrowsAsync<InvalidOperationException>(async () => await Writer.WriteAsync("x"u8.ToArray()).OrTimeout());
        await Assert.ThrowsAsync<InvalidOperationException>(async () => await Writer.WriteAsync("x"u8.ToArray(), new CancellationToken(true)).OrTimeout());
    }

    [Fact]
    public async Task A_flush_after_completion_does_not_throw()
    {
        await Writer.CompleteAsync();

        Assert.False((await Writer.FlushAsync().OrTimeout()).IsCanceled);
    }

    [Fact]
    public async Task Completing_twice_or_cancelling_afterwards_is_harmless()
    {
        Append("abc");

        Writer.Complete();
        Writer.Complete();
        await Writer.CompleteAsync();
        Writer.CancelPendingFlush();

        Assert.Equal("abc", Encoding.ASCII.GetString(await _ends.DrainToEndAsync().OrTimeout()));
    }

    [Fact]
    public async Task Completion_sends_what_was_advanced_and_not_flushed()
    {
        await Writer.WriteAsync("flushed,"u8.ToArray()).OrTimeout();
        Append("not flushed");

        await Writer.CompleteAsync();

        Assert.Equal("flushed,not flushed", Encoding.ASCII.GetString(await _ends.DrainToEndAsync().OrTimeout()));
    }

    [Fact]
    public async Task Completion_while_a_flush_is_paused_sends_everything_and_then_ends()
    {
        var sent = TestData.Bytes(WriterEnds.MoreThanFits);
        var flush = Writer.WriteAsync(sent).AsTask();

        await Writer.CompleteAsync();

        TestData.AssertSame(sent, await _ends.DrainToEndAsync().OrTimeout());
        Assert.False((await flush.OrTimeout()).IsCanceled);
    }

    [Fact]
    public async Task Completion_without_any_output_just_ends()
    {
        await Writer.CompleteAsync();

        Assert.Empty(await _ends.DrainToEndAsync().OrTimeout());
    }

    [Fact]
    public async Task Flushes_report_completion_once_the_other_side_is_gone_and_writes_stay_harmless()
    {
        await _ends.AbandonAsync();

        await Eventually.HoldsAsync(async () => (await Writer.WriteAsync(new byte[100]).OrTimeout()).IsCompleted);

        for (var i = 0; i < 3; i++)
        {
            Append(new byte[10_000]);
            Assert.True((await Writer.FlushAsync().OrTimeout()).IsCompleted);
        }
    }

    [Fact]
    public async Task A_write_that_nobody_can_read_tells_of_that_and_not_of_cancellation()
    {
        await _ends.AbandonAsync();
        await Eventually.HoldsAsync(async () => (await Writer.WriteAsync(new byte[100]).OrTimeout()).IsCompleted);

        Writer.CancelPendingFlush();

        var result = await Writer.WriteAsync(new byte[100], new CancellationToken(true)).OrTimeout();
        Assert.Equal((false, true), (result.IsCanceled, result.IsCompleted));
    }

    [Fact]
    public async Task A_paused_flush_ends_when_the_other_side_goes()
    {
        var flush = Writer.WriteAsync(TestData.Bytes(WriterEnds.MoreThanFits)).AsTask();
        Assert.False(flush.IsCompleted);

        await _ends.AbandonAsync();

        Assert.True((await flush.OrTimeout()).IsCompleted);
    }

    [Fact]
    public async Task The_stream_over_the_writer_writes_flushes_and_completes()
    {
        var sent = TestData.Bytes(300_000);
        var drain = _ends.DrainToEndAsync();
        await using (var stream = Writer.AsStream())
        {
            await new MemoryStream(sent).CopyToAsync(stream).OrTimeout();
            await stream.FlushAsync().OrTimeout();
        }

        TestData.AssertSame(sent, await drain.OrTimeout());
        Assert.Throws<InvalidOperationException>(() => Writer.GetMemory());
    }

    [Fact]
    public async Task The_stream_over_the_writer_can_leave_it_open()
    {
        await Writer.AsStream(leaveOpen: true).DisposeAsync();

        await Writer.WriteAsync("x"u8.ToArray()).OrTimeout();

        Assert.Equal("x", await DrainTextAsync(1));
    }

    [Fact]
    public async Task Continuations_may_write_again_from_where_they_run()
    {
        // No OrTimeout around the writes: on an inline transport every turn of this loop stays on the thread that completed the last one.
        var sent = TestData.Bytes(8_000_000);
        var drain = _ends.DrainToEndAsync();
        var writing = Task.Run(async () =>
        {
            for (var offset = 0; offset < sent.Length; offset += 40_000)
            {
                await Writer.WriteAsync(sent.AsMemory(offset, Math.Min(40_000, sent.Length - offset)));
            }

            await Writer.CompleteAsync();
        });

        await writing.OrTimeout();
        TestData.AssertSame(sent, await drain.OrTimeout());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Any_mixture_of_operations_sends_exactly_what_was_written(int round)
    {
        var seed = unchecked(TestData.NewSeed() + round);
        var random = new Random(seed);
        var sent = TestData.Bytes(random.Next(1, 3_000_000), seed);
        var drain = _ends.DrainToEndAsync();

        for (var offset = 0; offset < sent.Length;)
        {
            var count = Math.Min(sent.Length - offset, random.Next(5) == 0 ? random.Next(200_000) : random.Next(5_000));
            var piece = sent.AsMemory(offset, count);
            switch (random.Next(4))
            {
                case 0:
                    await Writer.WriteAsync(piece).OrTimeout();
                    break;
                case 1:
                    var memory = Writer.GetMemory(random.Next(count + 1));
                    count = Math.Min(count, memory.Length);
                    piece[..count].CopyTo(memory);
                    Writer.Advance(count);
                    break;
                case 2:
                    Writer.Write(piece.Span);
                    break;
                default:
                    using (var source = new CancellationTokenSource())
                    {
                        var write = Writer.WriteAsync(piece, source.Token).AsTask();
                        await source.CancelAsync();
                        try
                        {
                            await write.OrTimeout();
                        }
                        catch (OperationCanceledException)
                        {
                            // Only the waiting was given up; the bytes are on their way.
                        }
                    }

                    break;
            }

            offset += count;
            if (random.Next(3) == 0)
            {
                if (random.Next(3) == 0)
                {
                    Writer.CancelPendingFlush();
                }

                await Writer.FlushAsync().OrTimeout();
            }
        }

        await Writer.CompleteAsync();
        TestData.AssertSame(sent, await drain.OrTimeout());
    }

    private async Task AssertFlushIsPausedUntilDrainedAsync(byte[] sent)
    {
        var next = Writer.FlushAsync().AsTask();
        Assert.False(next.IsCompleted);

        TestData.AssertSame(sent, await _ends.DrainAsync(sent.Length).OrTimeout());

        var result = await next.OrTimeout();
        Assert.False(result.IsCanceled);
        Assert.False(result.IsCompleted);
    }

    private byte[] FillSpan(int sizeHint)
    {
        var span = Writer.GetSpan(sizeHint);
        Assert.True(span.Length >= Math.Max(sizeHint, 1));
        var sent = TestData.Bytes(span.Length);
        sent.CopyTo(span);
        Writer.Advance(span.Length);
        return sent;
    }

    /// <summary>What a caller does who neither awaits a task nor looks at it.</summary>
    private static bool Forget(ValueTask<FlushResult> task) => task.GetHashCode() != 0;

    private int GetSpanLength(int sizeHint) => Writer.GetSpan(sizeHint).Length;

    private void Append(string text) => Append(Encoding.ASCII.GetBytes(text));

    private void Append(byte[] bytes)
    {
        bytes.CopyTo(Writer.GetMemory(bytes.Length));
        Writer.Advance(bytes.Length);
    }

    private async Task<string> DrainTextAsync(int length) => Encoding.ASCII.GetString(await _ends.DrainAsync(length).OrTimeout());
}
