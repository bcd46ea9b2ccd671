using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;

namespace Evio.Transport.Tests.Connections;

/// <summary>The Socket of a connection is of this connection as long as that lives, and of none afterwards; and it holds up no end.</summary>
public sealed class ConnectionSocketTests
{
    public enum End
    {
        OutputCompleted,
        Disposal,
        DisposalWhileTheSocketReceives,
        AbortWithoutReason,
        Abort,
        ListenerDisposal,
    }

    [Theory, AllTransports]
    public async Task A_socket_that_was_kept_reaches_nobody_after_its_connections_end(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        await using var listener = await transport.BindAsync();
        Socket kept;
        SafeSocketHandle handle;
        await using (var pair = await ConnectedPair.ThroughAsync(listener))
        {
            kept = SocketOf(pair);
            handle = kept.SafeHandle;
            Assert.False(handle.IsClosed);
        }

        Assert.True(handle.IsClosed);

        // These have the numbers that are free.
        var others = new List<ConnectedPair>();
        for (var i = 0; i < 8; i++)
        {
            others.Add(await ConnectedPair.ThroughAsync(listener));
        }

        await Assert.ThrowsAsync<ObjectDisposedException>(() => kept.SendAsync("x"u8.ToArray(), SocketFlags.None, CancellationToken.None).OrTimeout());
        await Assert.ThrowsAsync<ObjectDisposedException>(() => kept.ReceiveAsync(new byte[1], SocketFlags.None, CancellationToken.None).OrTimeout());
        Assert.Throws<ObjectDisposedException>(() => kept.Send("x"u8));
        Assert.Throws<ObjectDisposedException>(() => kept.Shutdown(SocketShutdown.Both));
        Assert.Throws<ObjectDisposedException>(() => kept.Available);
        kept.Dispose();
        foreach (var other in others)
        {
            await other.AssertEchoesAsync();
            await other.DisposeAsync();
        }
    }

    [Theory, EvioTransports]
    public async Task A_socket_that_is_disposed_of_does_its_connection_no_harm(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        SocketOf(pair).Dispose();

        await pair.AssertEchoesAsync();
        await pair.Output.CompleteAsync();
        Assert.Empty(await pair.Client.ReceiveToEndAsync().OrTimeout());
    }

    [Theory]
    [AllTransports(
        End.OutputCompleted, End.Disposal, End.DisposalWhileTheSocketReceives, End.AbortWithoutReason, End.Abort, End.ListenerDisposal)]
    public async Task A_connection_whose_socket_was_used_tells_its_peer_of_its_end(TransportKind kind, End end)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        await using var pair = await ConnectedPair.ThroughAsync(listener);
        var socket = SocketOf(pair);
        var handle = socket.SafeHandle;
        Assert.Equal(pair.Connection.RemoteEndPoint, socket.RemoteEndPoint);
        Task receive = Task.CompletedTask;
        if (end is End.DisposalWhileTheSocketReceives && kind.IsEvio())
        {
            receive = socket.ReceiveAsync(new byte[1], SocketFlags.None, CancellationToken.None).AsTask();
            Assert.False(receive.IsCompleted);
        }

        await pair.Output.WriteAsync("last"u8.ToArray()).OrTimeout();
        Assert.Equal("last"u8.ToArray(), await pair.Client.ReceiveExactlyAsync(4).OrTimeout());
        switch (end)
        {
            case End.OutputCompleted:
                await pair.Output.CompleteAsync();
                break;
            case End.AbortWithoutReason:
                pair.Connection.Abort(null!);
                break;
            case End.Abort:
                pair.Connection.Features.Get<IConnectionLifetimeFeature>()!.Abort();
                break;
            case End.ListenerDisposal when kind.IsEvio():
                await listener.DisposeAsync().OrTimeout();
                break;
            case End.ListenerDisposal:
                // The reference leaves its connections alone.
                pair.Connection.Abort(new ConnectionAbortedException("enough"));
                break;
            default:
                await pair.Connection.DisposeAsync().OrTimeout();
                break;
        }

        if (end is End.Abort or End.ListenerDisposal)
        {
            var exception = await Assert.ThrowsAsync<SocketException>(() => pair.Client.ReceiveToEndAsync().OrTimeout());
            Assert.Equal(SocketError.ConnectionReset, exception.SocketErrorCode);
        }
        else
        {
            Assert.Empty(await pair.Client.ReceiveToEndAsync().OrTimeout());
        }

        await pair.Connection.DisposeAsync().OrTimeout();
        await Eventually.HoldsAsync(() => receive.IsCompleted);
        Assert.True(handle.IsClosed);
    }

    [Theory, AllTransports]
    public async Task An_abort_through_the_feature_has_the_references_reason(TransportKind kind)
    {
        await using var pair = await ConnectedPair.CreateAsync(kind);
        var read = pair.Input.ReadAsync().AsTask();

        pair.Connection.Features.Get<IConnectionLifetimeFeature>()!.Abort();

        var exception = await Assert.ThrowsAsync<ConnectionAbortedException>(() => read.OrTimeout());
        Assert.Equal("The connection was aborted by the application via IConnectionLifetimeFeature.Abort().", exception.Message);
    }

    private static Socket SocketOf(ConnectedPair pair) => pair.Connection.Features.Get<IConnectionSocketFeature>()!.Socket;
}
