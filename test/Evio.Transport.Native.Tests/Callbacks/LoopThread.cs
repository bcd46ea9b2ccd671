using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>A loop's thread as the kernel sees it (proc(5)).</summary>
internal sealed class LoopThread
{
    private readonly string _directory;

    private LoopThread(string directory) => _directory = directory;

    internal bool Exists => Directory.Exists(_directory);

    /// <summary>The processors that it may run on, as the kernel writes them: 0-3,5 for example.</summary>
    internal string Processors
    {
        get
        {
            const string Key = "Cpus_allowed_list:";
            return File.ReadLines($"{_directory}/status").Single(static line => line.StartsWith(Key, StringComparison.Ordinal))[Key.Length..].Trim();
        }
    }

    /// <summary>Waits for the kernel's end of the thread, which comes shortly after the one that Thread.Join waits for.</summary>
    internal void WaitForEnd() => Assert.True(SpinWait.SpinUntil(() => !Exists, Site.Limit));

    internal static async Task<LoopThread> OfAsync(EventLoop loop)
    {
        var found = new TaskCompletionSource<LoopThread>(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(loop.TryPost(
            static found => ((TaskCompletionSource<LoopThread>)found!).SetResult(
                new LoopThread($"/proc/{new FileInfo("/proc/thread-self").LinkTarget}")),
            found));
        return await found.Task.Within();
    }

    /// <summary>
    /// Asserts that all loops, and the threads on which the BCL's sockets serve the fallback, sleep rather than spin during a while in which nothing
    /// happens.
    /// </summary>
    internal static void AssertAllIdle()
    {
        var period = TimeSpan.FromMilliseconds(300);
        Assert.InRange(
            ProcessState.ProcessorTimeDuring(period, new EventLoopGroupOptions().ThreadName, ".NET Sockets", ".NET TP Worker"), TimeSpan.Zero, period / 6);
    }
}
