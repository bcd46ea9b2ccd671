using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;
using Xunit.Sdk;

namespace Evio.Transport.Native.Tests.Sockets;

/// <summary>Close, Reset, and handlers that throw.</summary>
public sealed class StreamSocketClosingTests : IAsyncLifetime
{
    private readonly TestGroup _group = new();

    public ValueTask InitializeAsync() => default;

    public ValueTask DisposeAsync() => _group.DisposeAsync();

    [Fact]
    public async Task Every_call_after_Close_is_refused()
    {
        await using var server = await Server.StartAsync(_group);
        var (_, handler) = server.Open();
        var socket = handler.Socket;

        socket.Close();
        await handler.Closed;

        AssertRefused(socket);
    }

    [Fact]
    public async Task Calls_are_refused_at_once_even_while_the_loop_is_busy()
    {
        await using var server = await Server.StartAsync(_group);
        var (client, handler) = server.Open();

        using (_group.KeepBusy())
        {
            handler.Socket.Close();

            AssertRefused(handler.Socket);
        }

        await handler.Closed;
        Assert.Equal(0, client.Receive(new byte[1]));
    }

    [Fact]
    public async Task Close_delivers_what_was_sent_before()
    {
        await using var server = await Server.StartAsync(_group);
        var (client, handler) = server.Open();
        Assert.Equal(2, handler.Socket.Send([1, 2]).Count);

        handler.Socket.Close();

        Assert.Equal(2, client.Receive(new byte[3]));
        Assert.Equal(0, client.Receive(new byte[3]));
    }

    [Fact]
    public async Task However_many_threads_close_it_the_handler_is_told_once()
    {
        await using var server = await Server.StartAsync(_group);
        for (var round = 0; round < 300; round++)
        {
            var (_, handler) = server.Open();

            Waiting.InParallel(3, _ => handler.Socket.Close());

            await handler.Closed;
            await _group.SettleAsync();
            Assert.Equal(1, handler.ClosedCount);
            Assert.Empty(handler.OffLoop);
        }

        Assert.Equal(0, _group.ConnectionCount);
    }

    [Fact]
    public async Task A_handler_may_close_its_socket_and_gets_no_further_event()
    {
        var eventsAfterClose = 0;
        await using var server = await Server.StartAsync(_group, socket => new RecordingHandler(socket)
        {
            Ready = (handler, events) =>
            {
                eventsAfterClose += handler.ClosedCount;
                if (events.HasFlag(ReadyEvents.Readable))
                {
                    handler.Socket.Close();
                    Assert.Equal(1, handler.ClosedCount);
                }
            },
        });
        var (client, handler) = server.Open();

        client.Send([1]);
        await handler.Closed;
        client.Dispose();

        await _group.SettleAsync();
        Assert.Equal(0, eventsAfterClose);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Reset_gives_the_peer_a_reset(bool withUnsentBytes)
    {
        await using var server = await Server.StartAsync(_group);
        var (client, handler) = server.Open();
        if (withUnsentBytes)
        {
            Fill(handler.Socket);
        }

        handler.Socket.Reset();

        AssertReset(client);
        await CloseAsync(handler);
    }

    [Fact]
    public async Task Reset_reaches_the_peer_while_other_threads_use_the_socket()
    {
        await using var server = await Server.StartAsync(_group);
        for (var round = 0; round < 100; round++)
        {
            var (client, handler) = server.Open();
            using var stop = new CancellationTokenSource();
            using var using1 = new ManualResetEventSlim();
            var user = Waiting.OnThread(() =>
            {
                while (!stop.IsCancellationRequested)
                {
                    _ = handler.Socket.Receive(new byte[1]);
                    _ = handler.Socket.Send(ReadOnlySpan<byte>.Empty);
                    using1.Set();
                }
            });
            using1.Await();

            handler.Socket.Reset();

            // The descriptor stays open and in use all the while.
            AssertReset(client);
            await stop.CancelAsync();
            await user.Within();
            await CloseAsync(handler);
        }
    }

    [Fact]
    public async Task Reset_is_reported_to_the_handler()
    {
        await using var server = await Server.StartAsync(_group);
        var (_, handler) = server.Open();

        handler.Socket.Reset();

        Waiting.Until(() => handler.Seen.HasFlag(ReadyEvents.HangUp));
        Assert.Equal(0, handler.ClosedCount);
        await CloseAsync(handler);
    }

    [Fact]
    public async Task Reset_ends_a_unix_connection()
    {
        using var directory = new TemporaryDirectory();
        await using var server = await Server.StartAsync(_group, new UnixDomainSocketEndPoint(directory.File("socket")));
        var (client, handler) = server.Open();

        handler.Socket.Reset();

        Assert.Equal(0, client.Receive(new byte[1]));
        await CloseAsync(handler);
    }

    [Fact]
    public async Task A_handler_that_throws_closes_its_own_connection_and_no_other()
    {
        var thrown = new InvalidTimeZoneException();
        await using var server = await Server.StartAsync(_group, socket => new RecordingHandler(socket)
        {
            Ready = (handler, events) =>
            {
                var buffer = new byte[1];
                if (events.HasFlag(ReadyEvents.Readable) && handler.Socket.Receive(buffer).Count == 1)
                {
                    _ = buffer[0] == 66 ? throw thrown : handler.Socket.Send(buffer);
                }
            },
        });
        var (bad, badHandler) = server.Open();
        var (good, goodHandler) = server.Open();

        bad.Send([66]);
        AssertReset(bad);

        await badHandler.Closed;
        Assert.Same(thrown, _group.NextUnhandled());
        good.Send([1]);
        Assert.Equal(1, good.Receive(new byte[1]));
        Assert.Equal((1, 0), (badHandler.ClosedCount, goodHandler.ClosedCount));
        Assert.Equal(1, _group.ConnectionCount);
    }

    [Fact]
    public async Task A_handler_that_throws_even_when_it_is_closed_leaves_the_loop_alive()
    {
        await using var server = await Server.StartAsync(_group, socket => new RecordingHandler(socket)
        {
            Ready = (_, events) => Assert.False(events.HasFlag(ReadyEvents.Readable)),
            AfterClosed = static () => throw new InvalidCastException(),
        });
        var (client, handler) = server.Open();

        client.Send([1]);
        await handler.Closed;

        Assert.IsType<FalseException>(_group.NextUnhandled());
        Assert.IsType<InvalidCastException>(_group.NextUnhandled());
        await _group.SettleAsync();
        var (_, next) = server.Open();
        next.Socket.Close();
        await next.Closed;
        Assert.IsType<InvalidCastException>(_group.NextUnhandled());
    }

    [Fact]
    public async Task A_socket_that_is_being_closed_is_not_detached_and_is_closed_all_the_same()
    {
        await using var server = await Server.StartAsync(_group);
        var (client, handler) = server.Open();

        using (var busy = _group.KeepBusy())
        {
            var detaching = _group.Loops[0].TryPost(_ => handler.Socket.Detach(), null);
            Assert.True(detaching);
            handler.Socket.Close();
        }

        Assert.IsType<ObjectDisposedException>(_group.NextUnhandled());
        await handler.Closed;
        Assert.Equal(0, client.Receive(new byte[1]));
    }

    [Fact]
    public async Task A_view_of_a_closed_socket_is_refused()
    {
        await using var server = await Server.StartAsync(_group);
        var (_, handler) = server.Open();
        await CloseAsync(handler);

        Assert.Throws<ObjectDisposedException>(() => handler.Socket.GetSocket());
    }

    [Fact]
    public async Task The_addresses_are_known_after_Close_whether_they_were_asked_for_before_or_not()
    {
        await using var server = await Server.StartAsync(_group, new System.Net.IPEndPoint(System.Net.IPAddress.Any, 0));
        var endPoint = new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, ((System.Net.IPEndPoint)server.EndPoint).Port);
        using var client1 = Server.Dial(endPoint);
        var asked = server.NextAccepted();
        Assert.Equal(endPoint, asked.Socket.LocalEndPoint);
        await CloseAsync(asked);
        using var client2 = Server.Dial(endPoint);
        var unasked = server.NextAccepted();
        await CloseAsync(unasked);

        Assert.Equal(endPoint, asked.Socket.LocalEndPoint);
        Assert.Equal(endPoint, unasked.Socket.LocalEndPoint);
        Assert.Equal(client2.LocalEndPoint, unasked.Socket.RemoteEndPoint);
    }

    private static void AssertRefused(StreamSocket socket)
    {
        Assert.Equal(SocketError.OperationAborted, socket.Receive(new byte[1]).Error);
        Assert.Equal(SocketError.OperationAborted, socket.Send([1]).Error);
        Assert.Equal(SocketError.OperationAborted, socket.Send([new byte[1], new byte[1]]).Error);
        socket.ShutdownSend();
        socket.Reset();
        socket.Close();
    }

    private static void AssertReset(Socket client)
    {
        var buffer = new byte[1 << 16];
        while (true)
        {
            var count = client.Receive(buffer, SocketFlags.None, out var error);
            if (error != SocketError.Success)
            {
                Assert.Equal(SocketError.ConnectionReset, error);
                return;
            }

            Assert.True(count > 0, "The connection ended without a reset.");
        }
    }

    private static void Fill(StreamSocket socket)
    {
        while (socket.Send(new byte[1 << 16]).IsSuccess)
        {
        }
    }

    private static Task CloseAsync(RecordingHandler handler)
    {
        handler.Socket.Close();
        return handler.Closed;
    }
}
