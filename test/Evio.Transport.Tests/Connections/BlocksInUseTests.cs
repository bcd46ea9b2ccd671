using System.Buffers;
using System.Net;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Tests.Connections;

/// <summary>A thread that is held just before its send or receive uses a block of the pool for as long: nothing ends before it.</summary>
public sealed class BlocksInUseTests
{
    [Theory, EvioTransports]
    public async Task A_disposal_waits_for_the_send_that_uses_a_block(TransportKind kind)
    {
        var pool = new HoldingPool();
        await using (var pair = await CreateAsync(kind, pool))
        {
            pair.Output.Write("x"u8);
            var held = pool.HoldNextUse();
            var flush = Task.Run(async () => await pair.Output.FlushAsync());
            await held.OrTimeout();

            await AssertDisposalWaitsAsync(pair, pool);

            await flush.OrTimeout();
        }

        Assert.True(pool.IsDisposed);
        Assert.Equal(0, pool.Errors);
    }

    /// <remarks>The thread that is held is not the loop's own, which would keep the loop from closing anything with Inline.</remarks>
    [Theory, EvioTransports]
    public async Task A_disposal_waits_for_the_receive_that_uses_a_block(TransportKind kind)
    {
        var pool = new HoldingPool();
        await using (var pair = await CreateAsync(kind, pool))
        {
            await pair.AssertEchoesAsync(1);
            await pair.Client.SendAllAsync("x").OrTimeout();
            await LoopHasSeenAsync(pair);
            var held = pool.HoldNextUse();
            var read = Task.Run(async () => await pair.Input.ReadAsync());
            await held.OrTimeout();

            await AssertDisposalWaitsAsync(pair, pool);

            await Assert.ThrowsAnyAsync<Exception>(() => read.OrTimeout());
        }

        Assert.True(pool.IsDisposed);
        Assert.Equal(0, pool.Errors);
    }

    [Theory, EvioTransports]
    public async Task The_listeners_disposal_waits_for_the_send_that_uses_a_block(TransportKind kind)
    {
        var pool = new HoldingPool();
        await using var transport = TransportInstance.Create(kind, configureServices: services => services.AddSingleton<IMemoryPoolFactory<byte>>(pool));
        var listener = await transport.BindAsync();
        await using var pair = await ConnectedPair.ThroughAsync(listener);
        pair.Output.Write("x"u8);
        var held = pool.HoldNextUse();
        var flush = Task.Run(async () => await pair.Output.FlushAsync());
        await held.OrTimeout();

        var disposal = listener.DisposeAsync().AsTask();
        await pair.Connection.ConnectionClosed.WhenCancelled();
        await LoopHasSeenAsync(pair);
        Assert.False(disposal.IsCompleted);
        pool.Release();

        await flush.OrTimeout();
        await disposal.OrTimeout();
        Assert.Equal(0, pool.Errors);
    }

    /// <summary>As clients do that give up, and servers that broadcast to a connection whose handler returns.</summary>
    [Theory, EvioTransports]
    public async Task A_disposal_waits_for_the_write_that_fills_a_block(TransportKind kind)
    {
        var pool = new HoldingPool();
        await using (var pair = await CreateAsync(kind, pool))
        {
            var held = pool.HoldNextUse();
            var write = Task.Run(async () => await pair.Output.WriteAsync("x"u8.ToArray()));
            await held.OrTimeout();

            await ReleaseDuringAsync(() => pair.Connection.DisposeAsync(), pool);

            await write.OrTimeout();
            Assert.Equal("x"u8.ToArray(), await pair.Client.ReceiveToEndAsync().OrTimeout());
            Assert.Equal(0, pool.Outstanding);
        }

        Assert.Equal(0, pool.Errors);
    }

    [Theory, EvioTransports(false, true)]
    public async Task A_streams_disposal_waits_for_what_copies_from_or_to_a_block(TransportKind kind, bool writes)
    {
        var pool = new HoldingPool();
        await using var transport = TransportInstance.Create(kind, configureServices: services => services.AddSingleton<IMemoryPoolFactory<byte>>(pool));
        var (stream, peer) = await ConnectStreamAsync(transport);
        using var _ = peer;
        var buffer = new byte[10];
        if (!writes)
        {
            await peer.SendAllAsync("xy").OrTimeout();
            await stream.ReadExactlyAsync(buffer.AsMemory(0, 1)).OrTimeout();
        }

        var held = pool.HoldNextUse();
        var use = Task.Run(async () =>
        {
            await (writes ? stream.WriteAsync("x"u8.ToArray()) : stream.ReadExactlyAsync(buffer.AsMemory(1, 1)));
        });
        await held.OrTimeout();

        await ReleaseDuringAsync(() => stream.DisposeAsync(), pool);

        Assert.True(await Record.ExceptionAsync(() => use.OrTimeout()) is null or ObjectDisposedException);
        Assert.Equal(0, pool.Outstanding);
        Assert.Equal(0, pool.Errors);
        await Assert.ThrowsAsync<ObjectDisposedException>(async () => await stream.WriteAsync(buffer)).OrTimeout();
        await Assert.ThrowsAsync<ObjectDisposedException>(async () => await stream.ReadExactlyAsync(buffer)).OrTimeout();
    }

    /// <summary>As HttpClient does with a connection whose server neither answers nor reads.</summary>
    [Theory, EvioTransports]
    public async Task A_streams_disposal_ends_what_waits(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var (stream, peer) = await ConnectStreamAsync(transport);
        using var _ = peer;
        var read = stream.ReadAtLeastAsync(new byte[1], 1).AsTask();
        var write = stream.WriteAsync(new byte[20_000_000]).AsTask();
        Assert.False(write.IsCompleted);

        await stream.DisposeAsync().OrTimeout();

        await Assert.ThrowsAsync<ObjectDisposedException>(() => write).OrTimeout();
        await Assert.ThrowsAsync<ObjectDisposedException>(() => read).OrTimeout();
    }

    [Theory, EvioTransports]
    public async Task A_streams_disposal_ends_a_read_while_output_is_left(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind, new TransportSettings { MaxWriteBufferSize = 100_000_000 });
        var (stream, peer) = await ConnectStreamAsync(transport);
        using var _ = peer;
        await stream.WriteAsync(new byte[20_000_000]).OrTimeout();
        var read = stream.ReadAtLeastAsync(new byte[1], 1).AsTask();

        var disposal = stream.DisposeAsync().AsTask();

        await Assert.ThrowsAsync<ObjectDisposedException>(() => read).OrTimeout();
        Assert.False(disposal.IsCompleted);
        Assert.Equal(20_000_000, (await peer.ReceiveToEndAsync().OrTimeout()).Length);
        await disposal.OrTimeout();
    }

    /// <summary>The listener does not wait for an application that keeps its connection; the pool does.</summary>
    [Theory, EvioTransports]
    public async Task A_pool_ends_when_the_application_has_given_its_blocks_back(TransportKind kind)
    {
        var pool = new HoldingPool();
        await using var transport = TransportInstance.Create(
            kind, new TransportSettings { LoopCount = 1 }, configureServices: services => services.AddSingleton<IMemoryPoolFactory<byte>>(pool));
        var listener = await transport.BindAsync();
        await using var pair = await ConnectedPair.ThroughAsync(listener);
        await pair.Client.SendAllAsync("x").OrTimeout();
        var read = await pair.Input.ReadAsync().OrTimeout();
        var memory = pair.Output.GetMemory();

        await listener.DisposeAsync().OrTimeout();

        Assert.Equal(1, read.Buffer.Length);
        memory.Span.Clear();
        pair.Output.Advance(memory.Length);
        pair.Output.GetMemory();
        Assert.False(pool.IsDisposed);
        await pair.Connection.DisposeAsync().OrTimeout();
        Assert.True(pool.IsDisposed);
        Assert.Equal(0, pool.Outstanding);
        Assert.Equal(0, pool.Errors);
    }

    /// <summary>After a read that was cancelled another one may follow; what the first one's user gives back then is not what that one receives into.</summary>
    [Theory, EvioTransports]
    public async Task Advancing_for_a_cancelled_read_does_not_take_the_block_from_the_next_one(TransportKind kind)
    {
        var pool = new HoldingPool();
        await using (var pair = await CreateAsync(kind, pool))
        {
            await pair.Client.SendAllAsync("ab").OrTimeout();
            var first = await pair.Input.ReadAtLeastAsync(2).OrTimeout();
            pair.Input.AdvanceTo(first.Buffer.Start, first.Buffer.End);
            pair.Input.CancelPendingRead();
            var cancelled = await pair.Input.ReadAsync().OrTimeout();
            Assert.True(cancelled.IsCanceled);
            await pair.Client.SendAllAsync("c").OrTimeout();
            await LoopHasSeenAsync(pair);
            var held = pool.HoldNextUse();
            var next = Task.Run(async () => await pair.Input.ReadAsync());
            await held.OrTimeout();

            pair.Input.AdvanceTo(cancelled.Buffer.End);
            pool.Release();

            var result = await next.OrTimeout();
            Assert.Equal("c"u8.ToArray(), result.Buffer.ToArray());
            pair.Input.AdvanceTo(result.Buffer.End);
            Assert.Equal(0, pool.Outstanding);
        }

        Assert.Equal(0, pool.Errors);
    }

    /// <summary>The stream that HttpClient gets, and its peer.</summary>
    private static async Task<(Stream Stream, Socket Peer)> ConnectStreamAsync(TransportInstance transport)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        using var handler = new SocketsHttpHandler().UseEvioTransport((IConnectionFactory)transport.Factory, listener.LocalEndPoint);
        var stream = await handler.ConnectCallback!(null!, CancellationToken.None).OrTimeout();
        return (stream, await listener.AcceptAsync().OrTimeout());
    }

    private static Task<ConnectedPair> CreateAsync(TransportKind kind, HoldingPool pool) =>
        ConnectedPair.CreateAsync(
            kind, new TransportSettings { LoopCount = 1 }, configureServices: services => services.AddSingleton<IMemoryPoolFactory<byte>>(pool));

    /// <summary>Lets the thread that is held go on when a disposal has done what it can, or waits for it.</summary>
    private static async Task ReleaseDuringAsync(Func<ValueTask> dispose, HoldingPool pool)
    {
        var disposal = Task.CompletedTask;
        var thread = new Thread(() => disposal = dispose().AsTask()) { IsBackground = true };
        thread.Start();
        await Eventually.HoldsAsync(() => (thread.ThreadState & (ThreadState.WaitSleepJoin | ThreadState.Stopped)) != 0);
        pool.Release();
        await Eventually.HoldsAsync(() => thread.ThreadState.HasFlag(ThreadState.Stopped));
        await disposal.OrTimeout();
    }

    private static async Task AssertDisposalWaitsAsync(ConnectedPair pair, HoldingPool pool)
    {
        var loop = pair.Connection.Features.Get<IEventLoopFeature>()!.Loop;
        pair.Connection.Abort(new ConnectionAbortedException("enough"));
        var disposal = pair.Connection.DisposeAsync().AsTask();
        await pair.Connection.ConnectionClosed.WhenCancelled();
        await Eventually.HoldsAsync(() => loop.ConnectionCount == 0);
        await LoopHasSeenAsync(pair);
        Assert.False(disposal.IsCompleted);

        pool.Release();
        await disposal.OrTimeout();
        Assert.Equal(0, pool.Outstanding);
    }

    /// <summary>What has happened by now its loop has been told of: the second call is made after the next look at the descriptors.</summary>
    private static async Task LoopHasSeenAsync(ConnectedPair pair)
    {
        var loop = pair.Connection.Features.Get<IEventLoopFeature>()!.Loop;
        for (var i = 0; i < 2; i++)
        {
            var made = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Assert.True(loop.TryPost(static made => ((TaskCompletionSource)made!).SetResult(), made));
            await made.Task.OrTimeout();
        }
    }
}
