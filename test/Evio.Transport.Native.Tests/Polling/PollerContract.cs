using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Evio.Transport.Native.Polling;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Polling;

/// <summary>What every poller has to do; one derived class per poller.</summary>
public abstract class PollerContract : IDisposable
{
    private protected const ulong Token = 0xFFFF_FFFF_0000_0007;

    private readonly Lazy<Poller> _poller;
    private readonly List<Socket> _sockets = [];

    protected PollerContract() => _poller = new Lazy<Poller>(CreatePoller);

    private protected abstract Poller CreatePoller();

    private protected Poller Poller => _poller.Value;

    /// <summary>How many events tell the readiness of one stream: one, or one for each direction.</summary>
    private protected virtual int EventsPerStream => 1;

    [Fact]
    public void A_stream_is_reported_as_writable_once()
    {
        var (stream, _) = Connect();

        Assert.Equal(0, Poller.RegisterStream(Descriptor(stream), Token));

        Assert.Equal((Token, ReadyEvents.Writable), WaitForOne());
        AssertNothing();
    }

    [Fact]
    public void Bytes_are_reported_once_although_they_stay_unread()
    {
        var (stream, peer) = ConnectAndRegister();

        peer.Send([1]);

        var (token, events) = WaitForOne();
        Assert.Equal(Token, token);
        Assert.True(events.HasFlag(ReadyEvents.Readable));
        AssertNothing();
        Assert.Equal(1, stream.Available);
    }

    [Fact]
    public void Further_bytes_are_reported_anew()
    {
        var (_, peer) = ConnectAndRegister();
        for (var i = 0; i < 3; i++)
        {
            peer.Send([1]);
            Assert.True(WaitForOne().Events.HasFlag(ReadyEvents.Readable));
            AssertNothing();
        }
    }

    [Fact]
    public void Room_to_send_is_reported_when_it_comes_back()
    {
        var (stream, peer) = ConnectAndRegister();
        Fill(stream);
        AssertNothing();

        var buffer = new byte[1 << 16];
        var events = ReadyEvents.None;
        peer.Blocking = false;
        Waiting.Until(() =>
        {
            while (peer.Receive(buffer, SocketFlags.None, out _) > 0)
            {
            }

            events |= Collect(0);
            return events.HasFlag(ReadyEvents.Writable);
        });
    }

    [Fact]
    public void A_listener_is_reported_for_as_long_as_a_connection_waits()
    {
        var listener = Listen();
        Assert.Equal(0, Poller.RegisterListener(Descriptor(listener), Token));
        AssertNothing();

        Dial(listener);

        for (var i = 0; i < 3; i++)
        {
            Assert.Equal((Token, ReadyEvents.Readable), WaitForOne());
        }

        _sockets.Add(listener.Accept());
        AssertNothing();
    }

    [Fact]
    public void The_end_of_the_peers_output_is_reported_while_bytes_are_unread()
    {
        var (_, peer) = ConnectAndRegister();
        peer.Send([1]);
        peer.Shutdown(SocketShutdown.Send);

        var events = CollectUntil(ReadyEvents.PeerClosed | ReadyEvents.Readable);
        Assert.Equal(ReadyEvents.None, events & (ReadyEvents.Error | ReadyEvents.HangUp));
        AssertNothing();
    }

    [Fact]
    public void A_reset_is_reported_as_error_and_hang_up()
    {
        var (_, peer) = ConnectAndRegister();
        peer.LingerState = new LingerOption(true, 0);
        peer.Dispose();

        CollectUntil(ReadyEvents.Error | ReadyEvents.HangUp);
        AssertNothing();
    }

    [Fact]
    public void Both_directions_shut_is_reported_as_hang_up()
    {
        var (stream, peer) = ConnectAndRegister();
        stream.Shutdown(SocketShutdown.Send);
        peer.Shutdown(SocketShutdown.Send);

        var events = CollectUntil(ReadyEvents.HangUp | ReadyEvents.PeerClosed);
        Assert.False(events.HasFlag(ReadyEvents.Error));
    }

    [Fact]
    public void Urgent_data_is_reported()
    {
        var (_, peer) = ConnectAndRegister();

        peer.Send([1], SocketFlags.OutOfBand);

        CollectUntil(ReadyEvents.Urgent);
        AssertNothing();
    }

    [Fact]
    public void A_deregistered_descriptor_is_not_reported()
    {
        var (stream, peer) = ConnectAndRegister();

        Poller.Deregister(Descriptor(stream));
        peer.Send([1]);
        Waiting.Until(() => stream.Available > 0);

        AssertNothing();
    }

    [Fact]
    public void A_deregistered_descriptor_can_be_registered_again()
    {
        var (stream, peer) = ConnectAndRegister();
        Poller.Deregister(Descriptor(stream));
        peer.Send([1]);
        Waiting.Until(() => stream.Available > 0);

        Assert.Equal(0, Poller.RegisterStream(Descriptor(stream), Token + 1));

        Assert.Equal((Token + 1, ReadyEvents.Readable | ReadyEvents.Writable), WaitForOne());
    }

    [Fact]
    public void A_closed_descriptor_is_not_reported()
    {
        var (stream, peer) = ConnectAndRegister();
        stream.Dispose();
        peer.Dispose();

        AssertNothing();
    }

    [Fact]
    public void A_descriptor_that_is_none_is_refused() => Assert.NotEqual(0, Poller.RegisterStream(-1, Token));

    [Fact]
    public void More_events_than_one_wait_brings_come_with_the_next()
    {
        const int Count = Poller.MaxEvents + 50;
        var (stream, _) = Connect();
        var copies = new List<int>();
        try
        {
            for (var i = 1; i <= Count; i++)
            {
                copies.Add(TestLibc.dup(Descriptor(stream)));
                Assert.Equal(0, Poller.RegisterStream(copies[^1], (ulong)i));
            }

            var tokens = new HashSet<ulong>();
            var count = Poller.Wait(0);
            Assert.Equal(Poller.MaxEvents, count);
            for (; count > 0; count = Poller.Wait(0))
            {
                for (var i = 0; i < count; i++)
                {
                    Assert.True(tokens.Add(Poller.GetEvent(i).Token));
                }
            }

            Assert.Equal(Count, tokens.Count);
        }
        finally
        {
            copies.ForEach(static copy => _ = TestLibc.close(copy));
        }
    }

    [Fact]
    public void A_wait_without_events_ends_when_its_time_is_up()
    {
        var start = System.Diagnostics.Stopwatch.GetTimestamp();

        Assert.Equal(0, Poller.Wait(20));

        Assert.True(System.Diagnostics.Stopwatch.GetElapsedTime(start) >= TimeSpan.FromMilliseconds(20));
    }

    [Fact]
    public async Task A_signal_ends_a_wait_without_an_event()
    {
        // With a handler; an ignored signal would not interrupt.
        const int SIGWINCH = 28;
        using var registration = PosixSignalRegistration.Create((PosixSignal)SIGWINCH, static context => context.Cancel = true);
        var thread = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
        var waiter = Waiting.OnThread(() =>
        {
            thread.SetResult(TestLibc.gettid());
            return Poller.Wait(-1);
        });
        var id = await thread.Task.Within();

        Waiting.Until(() =>
        {
            // Again and again: the first may come before the thread waits.
            _ = TestLibc.tgkill(Environment.ProcessId, id, SIGWINCH);
            return waiter.IsCompleted;
        });

        Assert.Equal(0, await waiter);
    }

    [Fact]
    public void A_wake_up_before_the_wait_ends_it()
    {
        Poller.Wake();

        Assert.Equal(1, Poller.Wait(-1));
        Assert.Equal(Poller.WakeToken, Poller.GetEvent(0).Token);
    }

    [Fact]
    public void Wake_ups_are_reported_once_and_again_after_the_next()
    {
        for (var i = 0; i < 3; i++)
        {
            Poller.Wake();
            Poller.Wake();
            Assert.Equal(1, Poller.Wait(-1));
            Assert.Equal(Poller.WakeToken, Poller.GetEvent(0).Token);
            AssertNothing();
        }
    }

    [Fact]
    public async Task A_wake_up_of_another_thread_ends_the_wait()
    {
        const int Rounds = 5_000;
        var rounds = 0;
        var waiter = Waiting.OnThread(() =>
        {
            for (; rounds < Rounds; Volatile.Write(ref rounds, rounds + 1))
            {
                while (Poller.Wait(-1) == 0)
                {
                }
            }
        });

        for (var i = 0; i < Rounds; i++)
        {
            Poller.Wake();
            var spin = new SpinWait();
            while (Volatile.Read(ref rounds) <= i && !waiter.IsCompleted)
            {
                spin.SpinOnce();
            }
        }

        await waiter.Within();
    }

    [Fact]
    public void A_wake_up_hides_no_event_of_a_descriptor()
    {
        var (stream, peer) = ConnectAndRegister();
        peer.Send([1]);
        Waiting.Until(() => stream.Available > 0);
        Poller.Wake();

        var tokens = new HashSet<ulong>();
        for (var count = Poller.Wait(0); count > 0; count = Poller.Wait(0))
        {
            tokens.UnionWith(Enumerable.Range(0, count).Select(i => Poller.GetEvent(i).Token));
        }

        Assert.Equal([Poller.WakeToken, Token], tokens.Order());
    }

    [Fact]
    public void A_poller_may_be_disposed_twice()
    {
        Poller.Dispose();
        Poller.Dispose();
    }

    [Fact]
    public void A_wake_up_that_comes_after_the_end_has_no_effect_on_anybody()
    {
        Poller.Dispose();
        using var next = new SocketPairs();

        Poller.Wake();

        next.AssertUntouched();
    }

    [Fact]
    public void Wake_ups_may_race_with_the_end()
    {
        for (var round = 0; round < 200; round++)
        {
            using var poller = CreatePoller();

            Waiting.InParallel(3, i =>
            {
                for (var n = 0; n < 10; n++)
                {
                    poller.Wake();
                }

                if (i == 0)
                {
                    poller.Dispose();
                }
            });
        }
    }

    public void Dispose()
    {
        _sockets.ForEach(static socket => socket.Dispose());
        if (_poller.IsValueCreated)
        {
            Poller.Dispose();
        }

        GC.SuppressFinalize(this);
    }

    private protected static int Descriptor(Socket socket) => (int)socket.Handle;

    private (Socket Stream, Socket Peer) Connect()
    {
        var listener = Listen();
        var peer = Dial(listener);
        var stream = listener.Accept();
        stream.Blocking = false;
        _sockets.Add(stream);
        return (stream, peer);
    }

    private protected (Socket Stream, Socket Peer) ConnectAndRegister()
    {
        var (stream, peer) = Connect();
        Assert.Equal(0, Poller.RegisterStream(Descriptor(stream), Token));
        Assert.Equal((Token, ReadyEvents.Writable), WaitForOne());
        return (stream, peer);
    }

    private Socket Listen()
    {
        var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        _sockets.Add(listener);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        return listener;
    }

    private Socket Dial(Socket listener)
    {
        var peer = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        _sockets.Add(peer);
        peer.Connect(listener.LocalEndPoint!);
        return peer;
    }

    private static void Fill(Socket stream)
    {
        var buffer = new byte[1 << 16];
        SocketError error;
        do
        {
            stream.Send(buffer, SocketFlags.None, out error);
        }
        while (error == SocketError.Success);
        Assert.Equal(SocketError.WouldBlock, error);
    }

    /// <summary>What one wait brings, which is of one token.</summary>
    private protected (ulong Token, ReadyEvents Events) WaitForOne()
    {
        var count = Poller.Wait((int)Waiting.Limit.TotalMilliseconds);
        Assert.InRange(count, 1, EventsPerStream);
        var (token, events) = Poller.GetEvent(0);
        for (var i = 1; i < count; i++)
        {
            var next = Poller.GetEvent(i);
            Assert.Equal(token, next.Token);
            events |= next.Events;
        }

        return (token, events);
    }

    /// <summary>The events of <see cref="Token"/> that one wait brings.</summary>
    private ReadyEvents Collect(int timeoutMilliseconds)
    {
        var all = ReadyEvents.None;
        var count = Poller.Wait(timeoutMilliseconds);
        for (var i = 0; i < count; i++)
        {
            var (token, events) = Poller.GetEvent(i);
            Assert.Equal(Token, token);
            all |= events;
        }

        return all;
    }

    /// <summary>Events may come one by one or together.</summary>
    private protected ReadyEvents CollectUntil(ReadyEvents expected)
    {
        var all = ReadyEvents.None;
        Waiting.Until(() => ((all |= Collect(100)) & expected) == expected, $"{expected}");
        return all;
    }

    private protected void AssertNothing() => Assert.Equal(0, Poller.Wait(0));
}
