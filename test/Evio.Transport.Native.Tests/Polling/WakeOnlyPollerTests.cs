using Evio.Transport.Native.Polling;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Polling;

public sealed class WakeOnlyPollerTests
{
    [Fact]
    public async Task A_wake_up_ends_the_current_wait_or_the_next()
    {
        using var poller = new WakeOnlyPoller();
        poller.Wake();
        Assert.Equal(0, poller.Wait(-1));

        var waiting = Waiting.OnThread(() => poller.Wait(-1));
        poller.Wake();
        Assert.Equal(0, await waiting.Within());
    }

    [Fact]
    public void A_wake_up_that_comes_after_the_end_has_no_effect()
    {
        var poller = new WakeOnlyPoller();
        poller.Dispose();

        poller.Wake();
    }
}
