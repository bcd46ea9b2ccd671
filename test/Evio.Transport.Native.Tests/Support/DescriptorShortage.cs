namespace Evio.Transport.Native.Tests.Support;

/// <summary>Leaves the process no free descriptor until it is disposed. Nothing that needs one works meanwhile, so no other test may run beside it.</summary>
internal sealed class DescriptorShortage : IDisposable
{
    private readonly List<int> _taken = new(4096);
    private readonly TestLibc.ResourceLimit _limit;

    internal unsafe DescriptorShortage()
    {
        TestLibc.ResourceLimit limit;
        _ = TestLibc.getrlimit(TestLibc.RLIMIT_NOFILE, &limit);
        _limit = limit;

        // Low, so that it takes few of them to reach it.
        limit.Soft = (ulong)ProcessState.Descriptors().Keys.Max() + 1;
        _ = TestLibc.setrlimit(TestLibc.RLIMIT_NOFILE, &limit);
        for (var descriptor = TestLibc.dup(0); descriptor >= 0; descriptor = TestLibc.dup(0))
        {
            _taken.Add(descriptor);
        }
    }

    /// <summary>Permits some descriptors more.</summary>
    internal static unsafe void Release(int count)
    {
        TestLibc.ResourceLimit limit;
        _ = TestLibc.getrlimit(TestLibc.RLIMIT_NOFILE, &limit);
        limit.Soft += (ulong)count;
        _ = TestLibc.setrlimit(TestLibc.RLIMIT_NOFILE, &limit);
    }

    /// <summary>
    /// Has the thread pool make more threads than it will want: starting one takes descriptors, and the runtime ends the process if there are none.
    /// </summary>
    internal static async Task MakeThreadsAsync()
    {
        const int Threads = 16;
        ThreadPool.GetMinThreads(out var workers, out var ports);
        Assert.True(ThreadPool.SetMinThreads(Math.Max(workers, Threads), ports));
        using var all = new Barrier(Threads);
        await Task.WhenAll(Enumerable.Range(0, Threads).Select(_ => Task.Run(() => all.SignalAndWait(TimeSpan.FromSeconds(30)))));
    }

    public unsafe void Dispose()
    {
        var limit = _limit;
        _ = TestLibc.setrlimit(TestLibc.RLIMIT_NOFILE, &limit);
        _taken.ForEach(static descriptor => _ = TestLibc.close(descriptor));
    }
}
