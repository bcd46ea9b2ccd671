using System.IO.Pipelines;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;

namespace Evio.Transport.Tests.Connections;

/// <summary>How a connection ends: by the client, by an abort, by the completion of the output, by disposal.</summary>
public sealed class ConnectionEndTests
{
    /// <summary>More than the write buffer and all that the kernel buffers for a client that does not read.</summary>
    private const int MoreThanFits = 12 * 1024 * 1024;

    private static readonly TransportSettings SmallWriteBuffer = new() { MaxWriteBufferSize = 64 * 1024 };

    [Theory, AllTransports]
    public async Task A_FIN_ends_the_input_and_closes_the_connection(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var read = pair.Input.ReadAsync().AsTask();

        pair.Client.Shutdown(SocketShutdown.Send);

        var result = await read.OrTimeout();
        Assert.True(result.IsCompleted);
        Assert.True(result.Buffer.IsEmpty);
        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task A_FIN_is_noticed_while_nobody_reads(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        pair.Client.Shutdown(SocketShutdown.Send);

        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task A_FIN_behind_unread_bytes_is_noticed_while_nobody_reads_and_the_bytes_stay_readable(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var sent = TestData.Bytes(100_000);
        await pair.Client.SendAllAsync(sent).OrTimeout();
        pair.Client.Shutdown(SocketShutdown.Send);

        await pair.Connection.ConnectionClosed.WhenCancelled();

        TestData.AssertSame(sent, await ReadToEndAsync(pair.Input).OrTimeout());
    }

    [Theory, AllTransports(false, true)]
    public async Task A_FIN_beside_an_own_half_close_is_an_end_and_the_bytes_before_it_are_read(TransportKind kind, bool ownFirst)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var socket = pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket;
        if (ownFirst)
        {
            socket.Shutdown(SocketShutdown.Send);
            Assert.Empty(await pair.Client.ReceiveToEndAsync().OrTimeout());
        }

        await pair.Client.SendAllAsync("last").OrTimeout();
        pair.Client.Shutdown(SocketShutdown.Send);
        if (!ownFirst)
        {
            await pair.Connection.ConnectionClosed.WhenCancelled();
            socket.Shutdown(SocketShutdown.Send);
            Assert.Empty(await pair.Client.ReceiveToEndAsync().OrTimeout());
        }

        TestData.AssertSame("last"u8.ToArray(), await ReadToEndAsync(pair.Input).OrTimeout());
        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task A_reset_after_the_FIN_loses_nothing_that_came_before_the_FIN(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        await pair.Client.SendAllAsync("last").OrTimeout();
        pair.Client.Dispose();
        await pair.Connection.ConnectionClosed.WhenCancelled();

        // The first is answered with a reset, which ends the output.
        while (!(await pair.Output.WriteAsync("x"u8.ToArray()).OrTimeout()).IsCompleted)
        {
        }

        TestData.AssertSame("last"u8.ToArray(), await ReadToEndAsync(pair.Input).OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task A_reset_after_the_FIN_loses_nothing_when_both_are_noticed_together(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var socket = pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket;
        using var entered = new SemaphoreSlim(0);
        using var busy = new ManualResetEventSlim();
        Assert.True(pair.Connection.Features.Get<IEventLoopFeature>()!.Loop.TryPost(
            _ =>
            {
                entered.Release();
                busy.Wait(TestTimeouts.Default);
            },
            null));
        await entered.WaitAsync().OrTimeout();
        await pair.Client.SendAllAsync("last").OrTimeout();
        await Eventually.HoldsAsync(() => socket.Available == 4);
        pair.Client.Dispose();
        _ = await pair.Output.WriteAsync("x"u8.ToArray()).OrTimeout();

        // Not whether there is an error to take: in adaptive groups another thread may have taken the loop, and that with it.
        await Eventually.HoldsAsync(() => IsClosed(socket));
        busy.Set();

        TestData.AssertSame("last"u8.ToArray(), await ReadToEndAsync(pair.Input).OrTimeout());
        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task A_FIN_is_noticed_between_a_read_and_its_advance(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        await pair.Client.SendAllAsync("abc").OrTimeout();
        var result = await pair.Input.ReadAsync().OrTimeout();

        pair.Client.Shutdown(SocketShutdown.Send);
        await pair.Connection.ConnectionClosed.WhenCancelled();

        Assert.Equal(3, result.Buffer.Length);
        pair.Input.AdvanceTo(result.Buffer.End);
        Assert.True((await pair.Input.ReadAsync().OrTimeout()).IsCompleted);
    }

    [Theory, AllTransports]
    public async Task All_that_is_written_after_the_clients_FIN_arrives(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        pair.Client.Shutdown(SocketShutdown.Send);
        await pair.Connection.ConnectionClosed.WhenCancelled();
        Assert.True((await pair.Input.ReadAsync().OrTimeout()).IsCompleted);
        var sent = TestData.Bytes(2_000_000);
        var receive = pair.Client.ReceiveToEndAsync();

        foreach (var piece in sent.Chunk(100_000))
        {
            Assert.False((await pair.Output.WriteAsync(piece).OrTimeout()).IsCompleted);
        }

        await pair.Output.CompleteAsync();
        TestData.AssertSame(sent, await receive.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_reset_is_thrown_by_every_read(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var read = pair.Input.ReadAsync().AsTask();

        pair.Client.Reset();

        await Assert.ThrowsAsync<ConnectionResetException>(() => read.OrTimeout());
        await Assert.ThrowsAsync<ConnectionResetException>(() => pair.Input.ReadAsync().OrTimeout());
        Assert.Throws<ConnectionResetException>(() => pair.Input.TryRead(out _));
        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task A_reset_is_noticed_while_nobody_reads(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        pair.Client.Reset();

        await pair.Connection.ConnectionClosed.WhenCancelled();
        await Assert.ThrowsAsync<ConnectionResetException>(() => pair.Input.ReadAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_reset_completes_flushes(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        pair.Client.Reset();
        await pair.Connection.ConnectionClosed.WhenCancelled();

        await AssertWritesBecomeNoOpsAsync(pair.Output);
    }

    [Theory, AllTransports]
    public async Task A_reset_ends_a_paused_flush(TransportKind kind)
    {
        await using var pair = await ConnectedPair.WithSlowClientAsync(kind, SmallWriteBuffer);
        var flush = WriteMoreThanFits(pair);
        await Eventually.HoldsAsync(() => pair.Client.Available > 0);

        pair.Client.Reset();

        Assert.True((await flush.OrTimeout()).IsCompleted);
        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task A_client_that_closes_with_unread_output_resets(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var read = pair.Input.ReadAsync().AsTask();
        await pair.Output.WriteAsync("never read"u8.ToArray()).OrTimeout();
        await Eventually.HoldsAsync(() => pair.Client.Available > 0);

        pair.Client.Dispose();

        await Assert.ThrowsAsync<ConnectionResetException>(() => read.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task An_abort_resets_the_client(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        pair.Connection.Abort(new ConnectionAbortedException("test"));

        Assert.Equal(SocketError.ConnectionReset, await pair.Client.ReceiveErrorAsync().OrTimeout());
        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task An_abort_is_what_pending_and_later_reads_throw(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var read = pair.Input.ReadAsync().AsTask();
        var reason = new ConnectionAbortedException("test");

        pair.Connection.Abort(reason);

        Assert.Same(reason, await Assert.ThrowsAsync<ConnectionAbortedException>(() => read.OrTimeout()));
        Assert.Same(reason, await Assert.ThrowsAsync<ConnectionAbortedException>(() => pair.Input.ReadAsync().OrTimeout()));
    }

    [Theory, AllTransports]
    public async Task An_abort_without_a_reason_throws_one_from_reads(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var read = pair.Input.ReadAsync().AsTask();

        pair.Connection.Abort();

        await Assert.ThrowsAsync<ConnectionAbortedException>(() => read.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task The_first_abort_gives_the_reason_and_later_ones_are_harmless(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var read = pair.Input.ReadAsync().AsTask();
        var first = new ConnectionAbortedException("first");

        pair.Connection.Abort(first);
        pair.Connection.Abort(new ConnectionAbortedException("second"));

        Assert.Same(first, await Assert.ThrowsAsync<ConnectionAbortedException>(() => read.OrTimeout()));
    }

    [Theory, AllTransports]
    public async Task An_abort_ends_a_paused_flush_and_does_not_wait_for_the_client(TransportKind kind)
    {
        await using var pair = await ConnectedPair.WithSlowClientAsync(kind, SmallWriteBuffer);
        var flush = WriteMoreThanFits(pair);
        await Eventually.HoldsAsync(() => pair.Client.Available > 0);

        pair.Connection.Abort(new ConnectionAbortedException("test"));

        Assert.True((await flush.OrTimeout()).IsCompleted);
        await pair.Connection.DisposeAsync().OrTimeout();
        Assert.Equal(SocketError.ConnectionReset, await pair.Client.ReceiveErrorAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Writes_after_an_abort_are_no_ops(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        pair.Connection.Abort(new ConnectionAbortedException("test"));

        await AssertWritesBecomeNoOpsAsync(pair.Output);
    }

    [Theory, AllTransports]
    public async Task An_abort_is_prompt_while_reading_is_held_back(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind, new TransportSettings { MaxReadBufferSize = 64 * 1024 });
        var sending = pair.Client.SendAllAsync(TestData.Bytes(50_000_000));
        var result = await pair.Input.ReadAsync().OrTimeout();
        pair.Input.AdvanceTo(result.Buffer.Start);
        Assert.False(sending.IsCompleted);

        pair.Connection.Abort(new ConnectionAbortedException("test"));

        await Assert.ThrowsAsync<SocketException>(() => sending.OrTimeout());
        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task An_abort_after_the_end_is_harmless(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        await pair.Output.CompleteAsync();
        Assert.Empty(await pair.Client.ReceiveToEndAsync().OrTimeout());
        pair.Connection.Abort(new ConnectionAbortedException("late"));

        await pair.Connection.DisposeAsync().OrTimeout();
        pair.Connection.Abort(new ConnectionAbortedException("later"));
    }

    [Theory, AllTransports]
    public async Task ConnectionClosed_never_fires_on_the_stack_of_who_aborts(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        using var aborting = new ThreadLocal<bool>();
        var firedWhileAborting = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        using var registration = pair.Connection.ConnectionClosed.UnsafeRegister(_ => firedWhileAborting.SetResult(aborting.Value), null);

        aborting.Value = true;
        pair.Connection.Abort(new ConnectionAbortedException("test"));
        aborting.Value = false;

        Assert.False(await firedWhileAborting.Task.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_blocking_callback_of_ConnectionClosed_stops_no_other_connection(TransportKind kind)
    {
        using var release = new ManualResetEventSlim();
        await using var pair = await ConnectedPair.CreateAsync(kind, new TransportSettings { LoopCount = 1 });
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var registration = pair.Connection.ConnectionClosed.UnsafeRegister(
            _ =>
            {
                entered.SetResult();
                release.Wait(TestTimeouts.Default);
            },
            null);

        pair.Client.Shutdown(SocketShutdown.Send);
        await entered.Task.OrTimeout();

        try
        {
            await pair.Output.WriteAsync("still served"u8.ToArray()).OrTimeout();
            Assert.Equal("still served"u8.ToArray(), await pair.Client.ReceiveExactlyAsync(12).OrTimeout());
            await using var other = await pair.ConnectAnotherAsync();
            await other.AssertEchoesAsync();
        }
        finally
        {
            release.Set();
        }
    }

    [Theory, AllTransports]
    public async Task Completing_the_output_sends_everything_and_then_a_FIN(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var sent = TestData.Bytes(2_000_000);
        var receive = pair.Client.ReceiveToEndAsync();

        await pair.Output.WriteAsync(sent).OrTimeout();
        await pair.Output.CompleteAsync();

        TestData.AssertSame(sent, await receive.OrTimeout());
        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task Completing_the_output_ends_a_pending_read(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var read = pair.Input.ReadAsync().AsTask();

        await pair.Output.CompleteAsync();

        await Assert.ThrowsAsync<ConnectionAbortedException>(() => read.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Completing_the_input_leaves_the_output_working(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        await pair.Input.CompleteAsync();
        var sent = TestData.Bytes(500_000);
        var receive = pair.Client.ReceiveToEndAsync();

        Assert.False((await pair.Output.WriteAsync(sent).OrTimeout()).IsCompleted);
        await pair.Output.CompleteAsync();

        TestData.AssertSame(sent, await receive.OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Disposal_sends_everything_queued_to_a_slow_client_and_then_a_FIN(TransportKind kind)
    {
        await using var pair = await ConnectedPair.WithSlowClientAsync(kind, SmallWriteBuffer);
        var sent = TestData.Bytes(MoreThanFits);
        var flush = pair.Output.WriteAsync(sent).AsTask();

        var disposal = pair.Connection.DisposeAsync().AsTask();
        var start = await pair.Client.ReceiveExactlyAsync(1_000_000).OrTimeout();
        Assert.False(disposal.IsCompleted);
        var rest = await pair.Client.ReceiveToEndAsync().OrTimeout();

        TestData.AssertSame(sent, start.Concat(rest).ToArray());
        await disposal.OrTimeout();
        Assert.False((await flush.OrTimeout()).IsCanceled);
    }

    [Theory, AllTransports]
    public async Task Disposal_sends_what_was_advanced_and_not_flushed(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        "tail"u8.CopyTo(pair.Output.GetSpan(4));
        pair.Output.Advance(4);

        await pair.Connection.DisposeAsync().OrTimeout();

        Assert.Equal("tail"u8.ToArray(), await pair.Client.ReceiveToEndAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Disposal_without_any_traffic_sends_a_FIN(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        await pair.Connection.DisposeAsync().OrTimeout();

        Assert.Empty(await pair.Client.ReceiveToEndAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Disposal_with_unread_input_still_sends_a_FIN_and_no_reset(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        await pair.Client.SendAllAsync(TestData.Bytes(1000)).OrTimeout();
        if (kind is TransportKind.Sockets)
        {
            // The reference always reads ahead, but nothing says when; closing before it has would reset there too.
            var socket = pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket;
            await Eventually.HoldsAsync(() => socket.Available == 0);
        }

        await pair.Output.WriteAsync("answer"u8.ToArray()).OrTimeout();
        await pair.Connection.DisposeAsync().OrTimeout();

        Assert.Equal("answer"u8.ToArray(), await pair.Client.ReceiveToEndAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Disposal_again_is_harmless(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);

        await pair.Connection.DisposeAsync().OrTimeout();
        await pair.Connection.DisposeAsync().OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Disposal_ends_the_connection_after_its_transport_was_replaced(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        await pair.Output.WriteAsync("before"u8.ToArray()).OrTimeout();
        var unrelated = new Pipe();
        pair.Connection.Transport = new DuplexPipe(unrelated.Reader, unrelated.Writer);

        await pair.Connection.DisposeAsync().OrTimeout();

        Assert.Equal("before"u8.ToArray(), await pair.Client.ReceiveToEndAsync().OrTimeout());
        Assert.False((await unrelated.Writer.WriteAsync("x"u8.ToArray()).OrTimeout()).IsCompleted);
    }

    [Theory, AllTransports]
    public async Task Disposal_after_an_abort_ends_though_the_client_never_reads(TransportKind kind)
    {
        await using var pair = await ConnectedPair.WithSlowClientAsync(kind, SmallWriteBuffer);
        _ = WriteMoreThanFits(pair);
        await Eventually.HoldsAsync(() => pair.Client.Available > 0);
        var disposal = pair.Connection.DisposeAsync().AsTask();

        pair.Connection.Abort(new ConnectionAbortedException("test"));

        await disposal.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Nothing_can_be_read_or_written_after_disposal(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var (input, output) = (pair.Input, pair.Output);

        await pair.Connection.DisposeAsync().OrTimeout();

        await Assert.ThrowsAsync<InvalidOperationException>(() => input.ReadAsync().OrTimeout());
        await Assert.ThrowsAsync<InvalidOperationException>(() => output.WriteAsync("x"u8.ToArray()).OrTimeout());
    }

    [Theory, AllTransports]
    public async Task A_connection_may_be_disposed_from_its_own_read_continuation(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var handling = Task.Run(async () =>
        {
            // No OrTimeout: on an inline transport this goes on, and disposes, on the thread that read.
            var result = await pair.Input.ReadAsync();
            pair.Input.AdvanceTo(result.Buffer.End);
            await pair.Output.WriteAsync("bye"u8.ToArray());
            await pair.Connection.DisposeAsync();
        });

        await pair.Client.SendAllAsync("hi").OrTimeout();

        Assert.Equal("bye"u8.ToArray(), await pair.Client.ReceiveToEndAsync().OrTimeout());
        await handling.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_connection_may_be_aborted_from_its_own_read_continuation(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var handling = Task.Run(async () =>
        {
            await pair.Input.ReadAsync();
            pair.Connection.Abort(new ConnectionAbortedException("test"));
            await pair.Connection.DisposeAsync();
        });

        await pair.Client.SendAllAsync("hi").OrTimeout();

        Assert.Equal(SocketError.ConnectionReset, await pair.Client.ReceiveErrorAsync().OrTimeout());
        await handling.OrTimeout();
    }

    /// <summary>Starts a flush that ends only when the client reads, or the connection ends.</summary>
    private static Task<FlushResult> WriteMoreThanFits(ConnectedPair pair)
    {
        var flush = pair.Output.WriteAsync(TestData.Bytes(MoreThanFits)).AsTask();
        Assert.False(flush.IsCompleted);
        return flush;
    }

    private static async Task AssertWritesBecomeNoOpsAsync(PipeWriter output)
    {
        await Eventually.HoldsAsync(async () => (await output.WriteAsync(new byte[1000]).OrTimeout()).IsCompleted);
        for (var i = 0; i < 3; i++)
        {
            output.GetSpan(10_000).Clear();
            output.Advance(10_000);
            Assert.True((await output.FlushAsync().OrTimeout()).IsCompleted);
        }
    }

    /// <summary>Whether TCP is through with it: tcpi_state of struct tcp_info (tcp(7)) is TCP_CLOSE.</summary>
    private static bool IsClosed(Socket socket)
    {
        const byte TcpClose = 7;
        Span<byte> state = stackalloc byte[1];
        socket.ReadTcpInfo(state);
        return state[0] == TcpClose;
    }

    private static async Task<byte[]> ReadToEndAsync(PipeReader reader)
    {
        using var all = new MemoryStream();
        await reader.CopyToAsync(all);
        return all.ToArray();
    }

    private sealed record DuplexPipe(PipeReader Input, PipeWriter Output) : IDuplexPipe;
}
