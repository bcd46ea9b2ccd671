using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Polling;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Polling;

public sealed class EpollPollerTests : PollerContract
{
    private protected override Poller CreatePoller() => new EpollPoller();

    [Fact]
    public void It_is_the_poller_of_Linux()
    {
        using var poller = Poller.Create(PollerKind.Epoll);

        Assert.True(Poller.IsSupported);
        Assert.IsType<EpollPoller>(poller);
        Assert.Equal(PollerKind.Epoll, Poller.Resolve(PollerKind.Auto, null));
    }

    [Fact]
    public void A_refused_registration_answers_with_the_reason()
    {
        Assert.Equal(Errno.EBADF, Poller.RegisterStream(-1, 1));
        using var file = File.OpenHandle(Environment.ProcessPath!);
        Assert.Equal(Errno.EPERM, Poller.RegisterStream((int)file.DangerousGetHandle(), 1));
    }

    [Fact]
    public void Its_descriptors_are_closed_with_it()
    {
        var before = ProcessState.SocketsAndPollers();
        var poller = new EpollPoller();
        Assert.Equal(2, ProcessState.OpenedSince(before).Count);

        poller.Dispose();

        Assert.Empty(ProcessState.OpenedSince(before));
    }
}
