using System.Buffers;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Tests.Connections;

/// <summary>Every block that a connection rents goes back to its pool, once, however the connection ends.</summary>
public sealed class MemoryPoolTests
{
    public enum End
    {
        ClientFin,
        ClientReset,
        Abort,
        AbortWhileReading,
        AbortWhileFlushIsPaused,
        OutputCompleted,
        DisposalWithUnreadInput,
        DisposalWithUnflushedOutput,
        DisposalBeforeAdvance,
        ResetWhileFlushIsPaused,
    }

    [Theory]
    [AllTransports(
        End.ClientFin,
        End.ClientReset,
        End.Abort,
        End.AbortWhileReading,
        End.AbortWhileFlushIsPaused,
        End.OutputCompleted,
        End.DisposalWithUnreadInput,
        End.DisposalWithUnflushedOutput,
        End.DisposalBeforeAdvance,
        End.ResetWhileFlushIsPaused)]
    public async Task All_blocks_are_back_when_the_listener_is_disposed(TransportKind kind, End end)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using (var pair = await CreateAsync(kind, pools))
        {
            await ConverseAsync(pair);
            await EndAsync(pair, end);
        }

        Assert.True(pools.Rented > 0);
        Assert.Equal(0, pools.Outstanding);
        Assert.Equal(0, pools.DoubleReturns);
    }

    /// <remarks>Not of the reference: depending on who comes first, its pipe keeps the block of a message that was read.</remarks>
    [Theory, EvioTransports]
    public async Task An_idle_connection_holds_no_block(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools);
        var read = pair.Input.ReadAsync().AsTask();
        Assert.Equal(0, pools.Outstanding);

        await pair.Client.SendAllAsync("x").OrTimeout();
        pair.Input.AdvanceTo((await read.OrTimeout()).Buffer.End);
        await ConverseAsync(pair);
        read = pair.Input.ReadAsync().AsTask();

        await Eventually.HoldsAsync(() => pools.Outstanding == 0);
        Assert.False(read.IsCompleted);
    }

    [Theory, EvioTransports]
    public async Task A_connection_that_is_idle_after_a_deferred_flush_holds_no_block(TransportKind kind)
    {
        const int Messages = 3;
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools);
        var answering = AnswerAsync();
        for (var i = 0; i < Messages; i++)
        {
            var sent = TestData.Bytes(100, seed: i);
            await pair.Client.SendAllAsync(sent).OrTimeout();
            TestData.AssertSame(sent, await pair.Client.ReceiveExactlyAsync(sent.Length).OrTimeout());
            await Eventually.HoldsAsync(() => pools.Outstanding == 0);
        }

        pair.Client.Shutdown(SocketShutdown.Send);
        await answering.OrTimeout();

        async Task AnswerAsync()
        {
            while (true)
            {
                // Goes on with the thread that delivers the input.
                var result = await pair.Input.ReadAsync().ConfigureAwait(false);
                if (result.IsCompleted)
                {
                    return;
                }

                // While it has not said that it has looked at it: the flush waits for more.
                await pair.Output.WriteAsync(result.Buffer.First).ConfigureAwait(false);
                pair.Input.AdvanceTo(result.Buffer.End);
            }
        }
    }

    [Theory, AllTransports]
    public async Task Read_ahead_of_an_application_that_does_not_read_is_bounded(TransportKind kind)
    {
        const int Limit = 64 * 1024;
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools, new TransportSettings { MaxReadBufferSize = Limit });
        var sent = TestData.Bytes(20_000_000);
        var sending = pair.Client.SendAllAsync(sent);
        var result = await pair.Input.ReadAsync().OrTimeout();
        pair.Input.AdvanceTo(result.Buffer.Start);

        // With the client stalled, whatever reads ahead has stopped as well.
        var socket = pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket;
        await Eventually.SettlesAsync(() => socket.Available);

        Assert.False(sending.IsCompleted);
        Assert.InRange(pools.OutstandingBytes, 1, 3 * Limit);

        using var received = new MemoryStream();
        while (received.Length < sent.Length)
        {
            result = await pair.Input.ReadAsync().OrTimeout();
            foreach (var segment in result.Buffer)
            {
                received.Write(segment.Span);
            }

            pair.Input.AdvanceTo(result.Buffer.End);
        }

        await sending.OrTimeout();
        TestData.AssertSame(sent, received.ToArray());
    }

    [Theory, AllTransports]
    public async Task Input_that_drips_in_while_nobody_reads_takes_no_block_for_each_drop(TransportKind kind)
    {
        const int Drops = 300;
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools, new TransportSettings { MaxReadBufferSize = 0 });
        var sent = TestData.Bytes(Drops);
        await pair.Client.SendAllAsync(sent.AsMemory(0, 1)).OrTimeout();
        var first = await pair.Input.ReadAsync().OrTimeout();

        var socket = pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket;
        for (var i = 1; i < Drops; i++)
        {
            await pair.Client.SendAllAsync(sent.AsMemory(i, 1)).OrTimeout();
            await Eventually.HoldsAsync(() => socket.Available == 0);
        }

        Assert.InRange(pools.OutstandingBytes, 4096, 16 * 1024);
        TestData.AssertSame(sent.AsMemory(0, 1), first.Buffer.ToArray());
        pair.Input.AdvanceTo(first.Buffer.End);
        var rest = await pair.Input.ReadAtLeastAsync(Drops - 1).OrTimeout();
        TestData.AssertSame(sent.AsMemory(1), rest.Buffer.ToArray());
        pair.Input.AdvanceTo(rest.Buffer.End);
    }

    [Theory, EvioTransports]
    public async Task A_little_input_after_much_of_it_keeps_no_large_block(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools);
        var sent = TestData.Bytes(4096 + 8192 + 16384);
        await pair.Client.SendAllAsync(sent).OrTimeout();
        var received = await pair.Input.ReadAtLeastAsync(sent.Length).OrTimeout();
        TestData.AssertSame(sent, received.Buffer.ToArray());
        pair.Input.AdvanceTo(received.Buffer.End);

        await pair.Client.SendAllAsync("x").OrTimeout();
        received = await pair.Input.ReadAsync().OrTimeout();
        pair.Input.AdvanceTo(received.Buffer.Start, received.Buffer.End);

        Assert.Equal(4096, pools.OutstandingBytes);
    }

    [Theory, EvioTransports]
    public async Task A_little_rest_of_much_input_keeps_no_large_block(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools);
        var sent = TestData.Bytes(1024 * 1024);
        var sending = pair.Client.SendAllAsync(sent);
        using var received = new MemoryStream();
        while (received.Length < sent.Length - 1)
        {
            // All but the last byte, which stays.
            var result = await pair.Input.ReadAsync().OrTimeout();
            var taken = result.Buffer.Slice(0, result.Buffer.Length - 1);
            foreach (var segment in taken)
            {
                received.Write(segment.Span);
            }

            pair.Input.AdvanceTo(taken.End, result.Buffer.End);
        }

        await sending.OrTimeout();
        Assert.Equal(4096, pools.OutstandingBytes);
        var read = pair.Input.ReadAsync().OrTimeout();
        await pair.Client.SendAllAsync("x").OrTimeout();
        var rest = (await read).Buffer;
        Assert.Equal([sent[^1], (byte)'x'], rest.ToArray());
        pair.Input.AdvanceTo(rest.End);
        TestData.AssertSame(sent.AsMemory(0, sent.Length - 1), received.ToArray());
    }

    [Theory, AllTransports]
    public async Task Little_flushes_to_a_peer_that_does_not_read_take_no_block_each(TransportKind kind)
    {
        const int Flushes = 300;
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools, new TransportSettings { MaxWriteBufferSize = 0 });
        var much = TestData.Bytes(12 * 1024 * 1024);
        await pair.Output.WriteAsync(much).OrTimeout();
        var before = await Eventually.SettlesAsync(() => pools.OutstandingBytes);
        Assert.True(before > 0);

        var little = TestData.Bytes(Flushes, seed: 1);
        for (var i = 0; i < Flushes; i++)
        {
            await pair.Output.WriteAsync(little.AsMemory(i, 1)).OrTimeout();
        }

        Assert.InRange(pools.OutstandingBytes, 0, before + (64 * 1024));
        TestData.AssertSame(much, await pair.Client.ReceiveExactlyAsync(much.Length).OrTimeout());
        TestData.AssertSame(little, await pair.Client.ReceiveExactlyAsync(Flushes).OrTimeout());
        await Eventually.HoldsAsync(() => pools.OutstandingBytes == 0 || kind is TransportKind.Sockets);
    }

    [Theory, EvioTransports]
    public async Task Memory_that_is_given_out_stays_the_writers_when_the_connection_ends(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools);
        var memory = pair.Output.GetMemory();
        pair.Client.Reset();
        await pair.Connection.ConnectionClosed.WhenCancelled();

        Assert.True((await pair.Output.FlushAsync().OrTimeout()).IsCompleted);

        Assert.Equal(4096, pools.OutstandingBytes);
        memory.Span.Fill(1);
        pair.Output.Advance(memory.Length);
        Assert.True((await pair.Output.FlushAsync().OrTimeout()).IsCompleted);
        Assert.Equal(0, pools.OutstandingBytes);
    }

    [Theory, EvioTransports]
    public async Task Blocks_grow_with_what_is_written(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var pair = await CreateAsync(kind, pools);

        Assert.Equal([4096, 4096, 8192, 16384, 32768, 32768], Enumerable.Range(0, 6).Select(_ => FillBlock()));
        await pair.Output.FlushAsync().OrTimeout();
        Assert.Equal(32768, pair.Output.GetMemory().Length);
        pair.Output.Advance(1);
        var flush = pair.Output.FlushAsync().OrTimeout();
        await pair.Client.ReceiveExactlyAsync(98305).OrTimeout();
        await flush;

        // The client may have the last byte before the sender has given the block back, with which a write would go on.
        await Eventually.HoldsAsync(() => pools.OutstandingBytes == 0);
        Assert.Equal(4096, FillBlock());

        int FillBlock()
        {
            var length = pair.Output.GetMemory().Length;
            pair.Output.Advance(length);
            return length;
        }
    }

    private static Task<ConnectedPair> CreateAsync(TransportKind kind, StrictMemoryPoolFactory pools, TransportSettings? settings = null) =>
        ConnectedPair.CreateAsync(
            kind,
            settings ?? new TransportSettings { MaxWriteBufferSize = 64 * 1024 },
            configureClient: static socket => socket.ReceiveBufferSize = 32 * 1024,
            configureServices: services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools));

    private static async Task ConverseAsync(ConnectedPair pair)
    {
        await pair.AssertEchoesAsync(1);
        await pair.AssertEchoesAsync(5000);
        await pair.AssertEchoesAsync(60_000);
    }

    private static async Task EndAsync(ConnectedPair pair, End end)
    {
        switch (end)
        {
            case End.ClientFin:
                pair.Client.Shutdown(SocketShutdown.Send);
                Assert.True((await pair.Input.ReadAsync().OrTimeout()).IsCompleted);
                break;
            case End.ClientReset:
                pair.Client.Reset();
                await Assert.ThrowsAsync<ConnectionResetException>(() => pair.Input.ReadAsync().OrTimeout());
                break;
            case End.Abort:
                pair.Connection.Abort(new ConnectionAbortedException("test"));
                await pair.Connection.ConnectionClosed.WhenCancelled();
                break;
            case End.AbortWhileReading:
                var read = pair.Input.ReadAsync().AsTask();
                pair.Connection.Abort(new ConnectionAbortedException("test"));
                await Assert.ThrowsAsync<ConnectionAbortedException>(() => read.OrTimeout());
                break;
            case End.AbortWhileFlushIsPaused:
                var aborted = pair.Output.WriteAsync(new byte[12_000_000]).AsTask();
                pair.Connection.Abort(new ConnectionAbortedException("test"));
                Assert.True((await aborted.OrTimeout()).IsCompleted);
                break;
            case End.OutputCompleted:
                await pair.Output.CompleteAsync();
                Assert.Empty(await pair.Client.ReceiveToEndAsync().OrTimeout());
                break;
            case End.DisposalWithUnreadInput:
                await pair.Client.SendAllAsync(new byte[50_000]).OrTimeout();
                var unread = await pair.Input.ReadAtLeastAsync(50_000).OrTimeout();
                pair.Input.AdvanceTo(unread.Buffer.Start, unread.Buffer.End);
                await pair.Connection.DisposeAsync().OrTimeout();
                break;
            case End.DisposalWithUnflushedOutput:
                pair.Output.GetSpan(50_000).Clear();
                pair.Output.Advance(50_000);
                pair.Output.GetSpan(10);
                var receive = pair.Client.ReceiveToEndAsync();
                await pair.Connection.DisposeAsync().OrTimeout();
                Assert.Equal(50_000, (await receive.OrTimeout()).Length);
                break;
            case End.DisposalBeforeAdvance:
                await pair.Client.SendAllAsync("abc").OrTimeout();
                await pair.Input.ReadAsync().OrTimeout();
                await pair.Connection.DisposeAsync().OrTimeout();
                break;
            case End.ResetWhileFlushIsPaused:
                var reset = pair.Output.WriteAsync(new byte[12_000_000]).AsTask();
                await Eventually.HoldsAsync(() => pair.Client.Available > 0);
                pair.Client.Reset();
                Assert.True((await reset.OrTimeout()).IsCompleted);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(end), end, message: null);
        }
    }
}
