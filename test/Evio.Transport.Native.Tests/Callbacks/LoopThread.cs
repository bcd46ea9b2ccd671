using System.Globalization;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>A loop's thread as the kernel sees it (proc(5)).</summary>
internal sealed class LoopThread
{
    private const int TicksPerSecond = 100;

    private readonly string _directory;

    private LoopThread(string directory) => _directory = directory;

    internal bool Exists => Directory.Exists(_directory);

    /// <summary>Waits for the kernel's end of the thread, which comes shortly after the one that Thread.Join waits for.</summary>
    internal void WaitForEnd() => Assert.True(SpinWait.SpinUntil(() => !Exists, Site.Limit));

    /// <summary>User and system time of the thread.</summary>
    internal TimeSpan ProcessorTime
    {
        get
        {
            // The name, in parentheses, may contain spaces; utime and stime are the 12th and 13th fields behind it.
            var stat = File.ReadAllText($"{_directory}/stat");
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            var ticks = long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture);
            return TimeSpan.FromSeconds((double)ticks / TicksPerSecond);
        }
    }

    internal static async Task<LoopThread> OfAsync(EventLoop loop)
    {
        var found = new TaskCompletionSource<LoopThread>(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(loop.TryPost(
            static found => ((TaskCompletionSource<LoopThread>)found!).SetResult(
                new LoopThread($"/proc/{new FileInfo("/proc/thread-self").LinkTarget}")),
            found));
        return await found.Task.Within();
    }

    /// <summary>Asserts that the thread sleeps rather than spins, for a while during which nothing happens.</summary>
    internal async Task AssertIdleAsync()
    {
        var period = TimeSpan.FromMilliseconds(300);
        var before = ProcessorTime;
        await Task.Delay(period);
        Assert.InRange(ProcessorTime - before, TimeSpan.Zero, period / 6);
    }
}
