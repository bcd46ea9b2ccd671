using System.IO.Pipelines;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http.Features;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What Kestrel adds to a connection to tell and to hear when it ends, beneath HTTP.</summary>
public sealed class ConnectionLifetimeTests
{
    [Theory, AllTransports]
    public async Task A_stop_asks_a_raw_connection_to_close_and_waits_for_its_last_words(TransportKind kind)
    {
        var opened = new TaskCompletionSource<ConnectionContext>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await StartAsync(kind, async connection =>
        {
            opened.SetResult(connection);
            await Requested(connection).WhenCancelled();
            Assert.False(connection.ConnectionClosed.IsCancellationRequested);
            await connection.Transport.Output.WriteAsync(TestData.Bytes(1_000_000));
        });
        using var client = await host.ConnectAsync();
        var connection = await opened.Task.OrTimeout();

        var stop = host.StopAsync();

        TestData.AssertSame(TestData.Bytes(1_000_000), await client.ReceiveToEndAsync().OrTimeout());
        await stop.OrTimeout();
        await connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, AllTransports]
    public async Task A_connection_can_ask_for_its_own_close(TransportKind kind)
    {
        await using var host = await StartAsync(kind, static async connection =>
        {
            connection.Features.GetRequiredFeature<IConnectionLifetimeNotificationFeature>().RequestClose();
            await Requested(connection).WhenCancelled();
            await connection.Transport.Output.WriteAsync("bye"u8.ToArray());
        });
        using var client = await host.ConnectAsync();

        Assert.Equal("bye"u8.ToArray(), await client.ReceiveToEndAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Completion_callbacks_run_after_the_application_in_reverse_order(TransportKind kind)
    {
        var calls = new System.Collections.Concurrent.ConcurrentQueue<string>();
        var completed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await StartAsync(kind, connection =>
        {
            var completion = connection.Features.GetRequiredFeature<IConnectionCompleteFeature>();
            completion.OnCompleted(
                _ =>
                {
                    calls.Enqueue("registered first");
                    completed.SetResult();
                    return Task.CompletedTask;
                },
                connection);
            completion.OnCompleted(
                _ =>
                {
                    calls.Enqueue("registered second");
                    return Task.CompletedTask;
                },
                connection);
            calls.Enqueue("application");
            return Task.CompletedTask;
        });
        using var client = await host.ConnectAsync();

        Assert.Empty(await client.ReceiveToEndAsync().OrTimeout());
        await completed.Task.OrTimeout();
        Assert.Equal(["application", "registered second", "registered first"], calls);
    }

    [Theory, AllTransports]
    public async Task The_heartbeat_reaches_the_connection(TransportKind kind)
    {
        var beats = new SemaphoreSlim(0);
        await using var host = await StartAsync(kind, async connection =>
        {
            connection.Features.GetRequiredFeature<IConnectionHeartbeatFeature>().OnHeartbeat(_ => beats.Release(), connection);
            await beats.WaitAsync();
        });
        using var client = await host.ConnectAsync();

        Assert.Empty(await client.ReceiveToEndAsync().OrTimeout());
    }

    public enum End
    {
        ClientFin,
        ClientReset,
        Abort,
        LifetimeFeatureAbort,
        OutputCompleted,
        HandlerReturns,
        HandlerThrows,
        StopOutOfTime,
    }

    [Theory, AllTransports(
        End.ClientFin,
        End.ClientReset,
        End.Abort,
        End.LifetimeFeatureAbort,
        End.OutputCompleted,
        End.HandlerReturns,
        End.HandlerThrows,
        End.StopOutOfTime)]
    public async Task ConnectionClosed_fires_once_and_on_nobodys_stack(TransportKind kind, End end)
    {
        var calls = 0;
        var onStack = false;
        var inside = new ThreadLocal<bool>();
        var closed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await StartAsync(kind, async connection =>
        {
            connection.ConnectionClosed.Register(() =>
            {
                Interlocked.Increment(ref calls);
                Volatile.Write(ref onStack, inside.Value);
                closed.TrySetResult();
            });
            entered.SetResult();

            // Not before the client knows that it is connected.
            var result = await connection.Transport.Input.ReadAsync();
            connection.Transport.Input.AdvanceTo(result.Buffer.End);
            inside.Value = true;
            switch (end)
            {
                case End.Abort:
                    connection.Abort(new ConnectionAbortedException("test"));
                    break;
                case End.LifetimeFeatureAbort:
                    connection.Features.GetRequiredFeature<IConnectionLifetimeFeature>().Abort();
                    break;
                case End.OutputCompleted:
                    // Synchronous on purpose: on this stack.
                    connection.Transport.Output.Complete();
                    break;
                case End.HandlerReturns:
                    inside.Value = false;
                    return;
                case End.HandlerThrows:
                    inside.Value = false;
                    throw new InvalidTimeZoneException();
            }

            inside.Value = false;
            await closed.Task;
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("x").OrTimeout();
        await entered.Task.OrTimeout();
        switch (end)
        {
            case End.ClientFin:
                client.Shutdown(SocketShutdown.Send);
                break;
            case End.ClientReset:
                client.Reset();
                break;
            case End.StopOutOfTime:
                await host.StopAsync(new CancellationToken(canceled: true)).OrTimeout();
                break;
        }

        await closed.Task.OrTimeout();
        await host.StopAsync().OrTimeout();
        Assert.Equal(1, calls);
        Assert.False(onStack);
    }

    [Theory, AllTransports]
    public async Task A_raw_handler_goes_on_writing_after_the_clients_half_close(TransportKind kind)
    {
        const int Chunks = 50;
        await using var host = await StartAsync(kind, static async connection =>
        {
            ReadResult result;
            do
            {
                result = await connection.Transport.Input.ReadAsync();
                connection.Transport.Input.AdvanceTo(result.Buffer.End);
            }
            while (!result.IsCompleted);
            await connection.ConnectionClosed.WhenCancelled();
            for (var i = 0; i < Chunks; i++)
            {
                await connection.Transport.Output.WriteAsync(TestData.Bytes(100_000, seed: i));
                await Task.Yield();
            }
        });
        using var client = await host.ConnectAsync();
        await client.SendAllAsync("question").OrTimeout();

        client.Shutdown(SocketShutdown.Send);

        var expected = Enumerable.Range(0, Chunks).SelectMany(static i => TestData.Bytes(100_000, seed: i)).ToArray();
        TestData.AssertSame(expected, await client.ReceiveToEndAsync().OrTimeout());
    }

    private static CancellationToken Requested(ConnectionContext connection) =>
        connection.Features.GetRequiredFeature<IConnectionLifetimeNotificationFeature>().ConnectionClosedRequested;

    private static Task<TransportHost> StartAsync(TransportKind kind, ConnectionDelegate handler) =>
        TransportHost.StartAsync(kind, static _ => { }, new HostSettings { Listen = listen => listen.Run(connection => handler(connection)) });
}
