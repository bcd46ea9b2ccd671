using System.Reflection;

namespace Evio.Transport.Native.Tests.Support;

/// <summary>Leaves the process no free descriptor until it is disposed. Nothing that needs one works meanwhile, so no other test may run beside it.</summary>
internal sealed class DescriptorShortage : IDisposable
{
    private readonly List<int> _taken = new(4096);
    private readonly TestLibc.ResourceLimit _limit;
    private readonly int _maxThreads;

    private unsafe DescriptorShortage(int maxThreads)
    {
        _maxThreads = maxThreads;
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

    /// <summary>
    /// Begins one. Starting a thread takes descriptors too, and the runtime ends the process if there are none: the thread pool gets more threads before
    /// than it will want, and no further ones, however long its work has to wait.
    /// </summary>
    internal static async Task<DescriptorShortage> BeginAsync()
    {
        LoadAssemblies(typeof(DescriptorShortage).Assembly, []);
        var threads = Math.Max(16, Environment.ProcessorCount);
        ThreadPool.GetMinThreads(out _, out var minPorts);
        ThreadPool.GetMaxThreads(out var maxThreads, out var maxPorts);
        Assert.True(ThreadPool.SetMinThreads(threads, minPorts));
        using var all = new Barrier(threads);
        await Task.WhenAll(Enumerable.Range(0, threads).Select(_ => Task.Run(all.Join)));
        Assert.True(ThreadPool.SetMaxThreads(threads, maxPorts));
        return new DescriptorShortage(maxThreads);
    }

    /// <summary>Loads everything that may be called for the first time, since there will be no descriptor to open a file with.</summary>
    private static void LoadAssemblies(Assembly assembly, HashSet<string> loaded)
    {
        foreach (var reference in assembly.GetReferencedAssemblies().Where(reference => loaded.Add(reference.FullName)))
        {
            LoadAssemblies(Assembly.Load(reference), loaded);
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

    public unsafe void Dispose()
    {
        var limit = _limit;
        _ = TestLibc.setrlimit(TestLibc.RLIMIT_NOFILE, &limit);
        _taken.ForEach(static descriptor => _ = TestLibc.close(descriptor));
        ThreadPool.GetMaxThreads(out _, out var maxPorts);
        _ = ThreadPool.SetMaxThreads(_maxThreads, maxPorts);
    }
}
