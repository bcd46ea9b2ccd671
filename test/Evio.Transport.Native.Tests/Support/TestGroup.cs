using System.Collections.Concurrent;
using System.Net;

namespace Evio.Transport.Native.Tests.Support;

/// <summary>A group of loops that fails its test when a loop reports an exception that the test does not take.</summary>
internal sealed class TestGroup : IAsyncDisposable
{
    internal const string ThreadName = "test loop";

    private readonly ConcurrentQueue<Exception> _unhandled = new();

    internal TestGroup(int loops = 1, LoadBalance loadBalance = LoadBalance.Random, string threadName = ThreadName, PollerKind poller = PollerKind.Auto, LoopScheduling? scheduling = null, Action<EventLoop, Exception>? onLoopFailed = null) =>
        Group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = loops,
            LoadBalance = loadBalance,
            ThreadName = threadName,
            Poller = poller,
            Scheduling = scheduling ?? TestScheduling.Value,
            OnLoopFailed = onLoopFailed,
            OnUnhandledException = (_, exception) => _unhandled.Enqueue(exception),
        });

    internal EventLoopGroup Group { get; }

    internal IReadOnlyList<EventLoop> Loops => Group.Loops;

    internal int ConnectionCount => Loops.Sum(static loop => loop.ConnectionCount);

    internal Task<StreamListener> ListenAsync(EndPoint endPoint, Action<StreamSocket> onAccepted, StreamListenerOptions? options = null) =>
        Group.ListenAsync(endPoint, onAccepted, options).Within();

    /// <summary>Runs a call on a loop and waits for it.</summary>
    internal Task RunAsync(Action call, int loop = 0)
    {
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(Loops[loop].TryPost(
            _ =>
            {
                try
                {
                    call();
                    done.SetResult();
                }
                catch (Exception exception)
                {
                    done.SetException(exception);
                }
            }, null));
        return done.Task.Within();
    }

    /// <summary>Waits until every loop has made the calls that were posted before.</summary>
    internal async Task SettleAsync()
    {
        for (var i = 0; i < Loops.Count; i++)
        {
            await RunAsync(static () => { }, i);
        }
    }

    /// <summary>Keeps a loop in a posted call until the result is disposed.</summary>
    internal BusyLoop KeepBusy(int loop = 0) => new(Loops[loop]);

    /// <summary>Waits for an exception that a loop reports, and takes it off the list of those that fail the test.</summary>
    internal Exception NextUnhandled()
    {
        Exception? exception = null;
        Waiting.Until(() => _unhandled.TryDequeue(out exception));
        return exception!;
    }

    public async ValueTask DisposeAsync()
    {
        await Group.DisposeAsync().AsTask().Within();
        Assert.Empty(_unhandled);
    }
}

internal sealed class BusyLoop : IDisposable
{
    private readonly ManualResetEventSlim _entered = new();
    private readonly ManualResetEventSlim _release = new();

    internal BusyLoop(EventLoop loop)
    {
        Assert.True(loop.TryPost(
            _ =>
            {
                _entered.Set();
                _release.Wait(Waiting.Limit, CancellationToken.None);
            }, null));
        _entered.Await();
    }

    public void Dispose() => _release.Set();
}
