using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

/// <summary>What a stream's end is reported as, for every order in which the two sides end it.</summary>
public sealed class EndOfInputTests : IAsyncLifetime
{
    private readonly TemporaryDirectory _directory = new();
    private readonly TestGroup _group = new();

    /// <summary>How this side ends its output, if it does.</summary>
    public enum OwnEnd
    {
        None,
        ShutdownSend,

        /// <summary>The user's, through a socket of the same descriptor.</summary>
        UsersSocket,
    }

    /// <summary>Which call comes first after a reset, and takes the error that the reset has left.</summary>
    public enum First
    {
        Receive,
        Send,
        SendSeveral,
        TakeError,
    }

    public static TheoryData<bool, OwnEnd, bool, bool, bool> Fins
    {
        get
        {
            var cases = new TheoryData<bool, OwnEnd, bool, bool, bool>();
            foreach (var flags in Enumerable.Range(0, 16))
            {
                foreach (var own in Enum.GetValues<OwnEnd>())
                {
                    cases.Add((flags & 1) != 0, own, (flags & 2) != 0, (flags & 4) != 0, (flags & 8) != 0);
                }
            }

            return cases;
        }
    }

    public static TheoryData<bool, OwnEnd, bool, First> Resets
    {
        get
        {
            var cases = new TheoryData<bool, OwnEnd, bool, First>();
            foreach (var flags in Enumerable.Range(0, 4))
            {
                foreach (var own in Enum.GetValues<OwnEnd>())
                {
                    foreach (var first in Enum.GetValues<First>())
                    {
                        cases.Add((flags & 1) != 0, own, (flags & 2) != 0, first);
                    }
                }
            }

            return cases;
        }
    }

    public ValueTask InitializeAsync() => default;

    public async ValueTask DisposeAsync()
    {
        await _group.DisposeAsync();
        _directory.Dispose();
    }

    [Theory]
    [MemberData(nameof(Fins))]
    public async Task A_FIN_is_an_end_after_all_that_came_before_it(bool unix, OwnEnd own, bool ownFirst, bool unread, bool peerCloses)
    {
        await using var server = await StartAsync(unix);
        var (client, handler) = server.Open();
        if (ownFirst)
        {
            EndOwn(handler, own);
            Assert.True(own is OwnEnd.None || client.Receive(new byte[1]) == 0);
        }

        if (unread)
        {
            client.Send("last"u8);
        }

        if (peerCloses)
        {
            client.Dispose();
        }
        else
        {
            client.Shutdown(SocketShutdown.Send);
        }

        WaitFor(handler, ReadyEvents.PeerClosed);
        if (!ownFirst)
        {
            EndOwn(handler, own);
        }

        if (unread)
        {
            var buffer = new byte[10];
            Assert.Equal(4, handler.Socket.Receive(buffer).Count);
            Assert.Equal("last"u8, buffer.AsSpan(0, 4));
        }

        AssertGracefulEnd(handler);

        // A send that is refused because of the own end tells nothing about the peer's.
        _ = own is OwnEnd.None ? default : handler.Socket.Send([1]);
        AssertGracefulEnd(handler);
    }

    [Theory]
    [MemberData(nameof(Resets))]
    public async Task A_reset_is_an_error_whoever_takes_it_first(bool unix, OwnEnd own, bool unread, First first)
    {
        await using var server = await StartAsync(unix);
        var (client, handler) = server.Open();
        if (unix)
        {
            // Which is how a Unix-domain peer resets: by leaving this unread (unix(7)).
            Assert.Equal(1, handler.Socket.Send([1]).Count);
        }

        EndOwn(handler, own);
        if (unread)
        {
            client.Send("last"u8);
        }

        Reset(client);
        WaitFor(handler, ReadyEvents.Error | ReadyEvents.HangUp);
        switch (first)
        {
            case First.Send:
                Assert.False(handler.Socket.Send([1]).IsSuccess);
                break;
            case First.SendSeveral:
                Assert.False(handler.Socket.Send([new byte[1], new byte[1]]).IsSuccess);
                break;
            case First.TakeError:
                Assert.Equal(SocketError.ConnectionReset, handler.Socket.TakeError());
                break;
        }

        // What arrived before may be received or not; the end is no graceful one, however often it is asked for.
        IoResult result;
        do
        {
            result = handler.Socket.Receive(new byte[10]);
        }
        while (result.Count > 0);

        Assert.Equal(SocketError.ConnectionReset, result.Error);
        Assert.Equal(SocketError.ConnectionReset, handler.Socket.Receive(new byte[10]).Error);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_reset_after_the_FIN_loses_nothing_that_came_before_the_FIN(bool sendTakesTheError)
    {
        await using var server = await StartAsync(unix: false);
        var (client, handler) = server.Open();
        client.Send("last"u8);
        client.Dispose();
        WaitFor(handler, ReadyEvents.PeerClosed);

        // The peer has closed, and answers this with a reset.
        Assert.Equal(1, handler.Socket.Send([1]).Count);
        WaitFor(handler, ReadyEvents.Error | ReadyEvents.HangUp);
        Assert.True(!sendTakesTheError || handler.Socket.Send([1]).Error == SocketError.Shutdown);

        Assert.Equal(4, handler.Socket.Receive(new byte[10]).Count);
        AssertGracefulEnd(handler);
    }

    private Task<Server> StartAsync(bool unix) =>
        Server.StartAsync(_group, unix ? new UnixDomainSocketEndPoint(_directory.File("socket")) : null);

    private static void EndOwn(RecordingHandler handler, OwnEnd own)
    {
        switch (own)
        {
            case OwnEnd.ShutdownSend:
                handler.Socket.ShutdownSend();
                break;
            case OwnEnd.UsersSocket:
                handler.Socket.GetSocket().Shutdown(SocketShutdown.Send);
                break;
        }
    }

    private static void Reset(Socket client)
    {
        if (client.AddressFamily != AddressFamily.Unix)
        {
            client.LingerState = new LingerOption(true, 0);
        }

        client.Dispose();
    }

    private static void AssertGracefulEnd(RecordingHandler handler)
    {
        var end = handler.Socket.Receive(new byte[10]);
        Assert.Equal((true, 0, SocketError.Success), (end.IsSuccess, end.Count, end.Error));
    }

    private static void WaitFor(RecordingHandler handler, ReadyEvents events) =>
        Waiting.Until(() => handler.Seen.HasFlag(events), $"{events}");
}
