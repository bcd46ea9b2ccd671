using System.Runtime.InteropServices;
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
        using var poller = Poller.Create();

        Assert.True(Poller.IsSupported);
        Assert.IsType<EpollPoller>(poller);
    }

    [Fact]
    public void A_refused_registration_answers_with_the_reason()
    {
        Assert.Equal(Errno.EBADF, Poller.RegisterStream(-1, 1));
        using var file = File.OpenHandle(Environment.ProcessPath!);
        Assert.Equal(Errno.EPERM, Poller.RegisterStream((int)file.DangerousGetHandle(), 1));
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
    public void Its_descriptors_are_closed_with_it()
    {
        var before = ProcessState.SocketsAndPollers();
        var poller = new EpollPoller();
        Assert.Equal(2, ProcessState.OpenedSince(before).Count);

        poller.Dispose();

        Assert.Empty(ProcessState.OpenedSince(before));
    }
}
