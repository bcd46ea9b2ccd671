using System.Text;
using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

/// <summary>What is flushed inside of a handler's call waits for the end of that call, and for nothing else.</summary>
public sealed class DeferredFlushTests
{
    [Theory, EvioTransports]
    public async Task What_is_flushed_to_another_connection_leaves_with_the_call(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        await using var listener = await transport.BindAsync();
        await using var caller = await ConnectedPair.ThroughAsync(listener);
        await using var other = await ConnectedPair.ThroughAsync(listener);
        var handler = CallAsync(caller, async () =>
        {
            await other.Connection.Transport.Output.WriteAsync("a"u8.ToArray());
            await other.Connection.Transport.Output.WriteAsync("b"u8.ToArray());
        });

        await caller.Client.SendAllAsync("1").OrTimeout();
        await handler.OrTimeout();
        Assert.Equal("ab"u8.ToArray(), await other.Client.ReceiveExactlyAsync(2).OrTimeout());
    }

    /// <summary>The call waits for the receiver, which it has no thread for otherwise: only the monitor can send.</summary>
    [Theory, EvioTransports]
    public async Task What_is_flushed_to_another_connection_leaves_while_the_call_blocks(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind, new TransportSettings { LoopCount = 1 });
        await using var listener = await transport.BindAsync();
        await using var caller = await ConnectedPair.ThroughAsync(listener);
        await using var other = await ConnectedPair.ThroughAsync(listener);
        var handler = CallAsync(caller, async () =>
        {
            for (var i = 0; i < 3; i++)
            {
                await other.Connection.Transport.Output.WriteAsync("a"u8.ToArray());
                Assert.Equal(1, other.Client.Receive(new byte[1]));
            }
        });

        await caller.Client.SendAllAsync("1").OrTimeout();
        await handler.OrTimeout();
    }

    /// <summary>Two answers to one input, and the second only after the first has brought more input.</summary>
    [Theory, EvioTransports]
    public async Task An_answer_leaves_before_its_handler_reads_on(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        await using var listener = await transport.BindAsync();
        await using var pair = await ConnectedPair.ThroughAsync(listener);
        var handler = CallAsync(pair, async () =>
        {
            await pair.Connection.Transport.Output.WriteAsync("a"u8.ToArray());
            await CallAsync(pair, async () => await pair.Connection.Transport.Output.WriteAsync("b"u8.ToArray()));
        });

        await AskAsync(pair, expected: "a");
        await AskAsync(pair, expected: "b");
        await handler.OrTimeout();
    }

    /// <summary>The thread of the call sends for it when it is through with that, and for as long as there is more, which somebody else has to do some time.</summary>
    [Theory, EvioTransports]
    public async Task What_is_flushed_on_the_pool_while_the_calls_thread_sends_arrives(TransportKind kind)
    {
        const int Flushes = 50_000;
        await using var transport = TransportInstance.Create(kind, new TransportSettings { LoopCount = 1 });
        await using var listener = await transport.BindAsync();
        await using var pair = await ConnectedPair.ThroughAsync(listener);
        var handler = CallAsync(pair, async () =>
        {
            var output = pair.Connection.Transport.Output;
            var goOn = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            await output.WriteAsync("a"u8.ToArray());
            goOn.SetResult();
            await goOn.Task.ContinueWith(static _ => { }, TaskScheduler.Default);
            for (var i = 1; i < Flushes; i++)
            {
                await output.WriteAsync("a"u8.ToArray());
            }
        });

        await pair.Client.SendAllAsync("1").OrTimeout();
        Assert.All(await pair.Client.ReceiveExactlyAsync(Flushes).OrTimeout(), static what => Assert.Equal((byte)'a', what));
        await handler.OrTimeout();
    }

    /// <summary>Whoever reads without giving its thread back waits for the monitor now and then, and not for each of its answers.</summary>
    [Theory]
    [InlineData(TransportKind.EvioThreadPool)]
    [InlineData(TransportKind.EvioAdaptive)]
    public async Task A_handler_that_blocks_for_its_input_is_found_out(TransportKind kind)
    {
        const int Calls = 4;
        const int Rounds = 5;
        await using var transport = TransportInstance.Create(kind, new TransportSettings { LoopCount = 1 });
        await using var listener = await transport.BindAsync();
        await using var pair = await ConnectedPair.ThroughAsync(listener);
        var (input, output) = (pair.Connection.Transport.Input, pair.Connection.Transport.Output);
        var waits = 0;
        var handler = Task.Run(async () =>
        {
            for (var call = 0; call < Calls; call++)
            {
                input.AdvanceTo((await input.ReadAsync()).Buffer.End);
                for (var round = 0; round < Rounds; round++)
                {
                    await output.WriteAsync("a"u8.ToArray());
                    var read = input.ReadAsync();

                    // Nobody but the monitor sends it now.
                    waits += ((EvioConnection)pair.Connection).Output.HasDeferred ? 1 : 0;
                    input.AdvanceTo(read.AsTask().GetAwaiter().GetResult().Buffer.End);
                }

                await output.WriteAsync("b"u8.ToArray());
            }
        });

        for (var call = 0; call < Calls; call++)
        {
            for (var round = 0; round <= Rounds; round++)
            {
                await AskAsync(pair, expected: round < Rounds ? "a" : "b");
            }
        }

        await handler.OrTimeout();

        // The 1st, the 5th and the 21st of 24, and some more since the last answer of each call comes to its end.
        Assert.InRange(waits, 0, 6);
    }

    /// <summary>The same for whoever waits for what another connection's client makes of it.</summary>
    [Theory]
    [InlineData(TransportKind.EvioInline)]
    [InlineData(TransportKind.EvioThreadPool)]
    [InlineData(TransportKind.EvioAdaptive)]
    public async Task A_handler_that_blocks_for_another_connections_client_is_found_out(TransportKind kind)
    {
        const int Calls = 24;
        await using var transport = TransportInstance.Create(kind, new TransportSettings { LoopCount = 1 });
        await using var listener = await transport.BindAsync();
        await using var caller = await ConnectedPair.ThroughAsync(listener);
        await using var other = await ConnectedPair.ThroughAsync(listener);
        var (input, output) = (caller.Connection.Transport.Input, other.Connection.Transport.Output);
        var waits = 0;
        var handler = Task.Run(async () =>
        {
            for (var call = 0; call < Calls; call++)
            {
                input.AdvanceTo((await input.ReadAsync()).Buffer.End);
                await output.WriteAsync("a"u8.ToArray());
                waits += ((EvioConnection)other.Connection).Output.HasDeferred ? 1 : 0;
                Assert.Equal(1, other.Client.Receive(new byte[1]));
                await caller.Connection.Transport.Output.WriteAsync("b"u8.ToArray());
            }
        });

        for (var call = 0; call < Calls; call++)
        {
            await AskAsync(caller, expected: "b");
        }

        await handler.OrTimeout();
        Assert.InRange(waits, 0, 6);
    }

    private static async Task AskAsync(ConnectedPair pair, string expected)
    {
        await pair.Client.SendAllAsync("1").OrTimeout();
        Assert.Equal(Encoding.ASCII.GetBytes(expected), await pair.Client.ReceiveExactlyAsync(expected.Length).OrTimeout());
    }

    private static async Task CallAsync(ConnectedPair pair, Func<Task> call)
    {
        var result = await pair.Connection.Transport.Input.ReadAsync();
        pair.Connection.Transport.Input.AdvanceTo(result.Buffer.End);
        await call();
    }
}
