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

        await pair.Client.SendAllAsync("1").OrTimeout();
        Assert.Equal("a"u8.ToArray(), await pair.Client.ReceiveExactlyAsync(1).OrTimeout());
        await pair.Client.SendAllAsync("2").OrTimeout();
        Assert.Equal("b"u8.ToArray(), await pair.Client.ReceiveExactlyAsync(1).OrTimeout());
        await handler.OrTimeout();
    }

    private static async Task CallAsync(ConnectedPair pair, Func<Task> call)
    {
        var result = await pair.Connection.Transport.Input.ReadAsync();
        pair.Connection.Transport.Input.AdvanceTo(result.Buffer.End);
        await call();
    }
}
