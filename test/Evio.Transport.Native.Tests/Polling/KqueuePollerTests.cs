using System.Net.Sockets;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Polling;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Polling;

public sealed class KqueuePollerTests : PollerContract
{
    private protected override int EventsPerStream => 2;

    private protected override Poller CreatePoller()
    {
        KqueueOverEpoll.Require();
        return new KqueuePoller();
    }

    [Theory]
    [InlineData(PollerKind.Auto, "kqueue", PollerKind.Kqueue)]
    [InlineData(PollerKind.Auto, "epoll", PollerKind.Epoll)]
    [InlineData(PollerKind.Kqueue, "epoll", PollerKind.Kqueue)]
    [InlineData(PollerKind.Epoll, "kqueue", PollerKind.Epoll)]
    public void The_environment_chooses_where_the_options_do_not(PollerKind kind, string variable, PollerKind expected) =>
        Assert.Equal(expected, Poller.Resolve(kind, variable));

    [Fact]
    public void A_poller_that_nobody_knows_is_refused() =>
        Assert.Contains("EVIO_POLLER is select", Assert.Throws<PlatformNotSupportedException>(() => Poller.Resolve(PollerKind.Auto, "select")).Message);

    [Fact]
    public void A_group_can_be_told_to_use_it()
    {
        KqueueOverEpoll.Require();
        using var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1, Poller = PollerKind.Kqueue });
        using var ran = new ManualResetEventSlim();

        Assert.True(group.Loops[0].TryPost(_ => ran.Set(), null));

        ran.Await();
    }

    [Fact]
    public void A_group_refuses_a_poller_that_is_not_defined() =>
        Assert.Throws<ArgumentException>(() => new EventLoopGroup(new EventLoopGroupOptions { Poller = (PollerKind)3 }));

    [Fact]
    public void A_refused_registration_answers_with_the_reason()
    {
        Assert.Equal(Errno.EBADF, Poller.RegisterStream(-1, 1));
        Assert.Equal(Errno.EBADF, Poller.RegisterListener(-1, 1));
    }

    [Fact]
    public void An_end_is_no_error_and_a_reset_is_one()
    {
        var (_, peer) = ConnectAndRegister();
        peer.Shutdown(SocketShutdown.Send);
        Assert.Equal(ReadyEvents.None, CollectUntil(ReadyEvents.PeerClosed) & ReadyEvents.Error);

        peer.LingerState = new LingerOption(true, 0);
        peer.Dispose();

        CollectUntil(ReadyEvents.Error);
    }

    [Fact]
    public void Room_to_send_and_bytes_come_as_the_readiness_of_one_stream()
    {
        var (stream, peer) = ConnectAndRegister();
        Poller.Deregister(Descriptor(stream));
        peer.Send([1]);
        Waiting.Until(() => stream.Available > 0);
        Assert.Equal(0, Poller.RegisterStream(Descriptor(stream), Token));

        var count = Poller.Wait(-1);

        Assert.Equal(
            [(Token, ReadyEvents.Readable), (Token, ReadyEvents.Writable)], Enumerable.Range(0, count).Select(i => Poller.GetEvent(i)).Order());
    }

    [Fact]
    public void It_is_not_inherited_by_the_programs_that_are_started()
    {
        KqueueOverEpoll.Require();
        var before = ProcessState.Descriptors();
        using var poller = new KqueuePoller();

        var kqueue = ProcessState.Descriptors().Keys.Except(before.Keys).Single(static descriptor => ProcessState.Descriptors()[descriptor].Contains("eventpoll"));

        const int F_GETFD = 1;
        Assert.Equal(Platform.FD_CLOEXEC, TestLibc.fcntl(kqueue, F_GETFD, 0));
    }

    [Fact]
    public void Its_descriptor_is_closed_with_it()
    {
        // The library keeps one open for good, from its first kqueue on.
        CreatePoller().Dispose();
        var before = ProcessState.SocketsAndPollers();
        var poller = new KqueuePoller();
        Assert.Single(ProcessState.OpenedSince(before));

        poller.Dispose();

        Assert.Empty(ProcessState.OpenedSince(before));
    }
}
