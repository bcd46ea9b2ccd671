namespace Evio.Transport.Native.Tests.Support;

/// <summary>Leaves the process no free descriptor until it is disposed. Nothing that needs one works meanwhile, so no other test may run beside it.</summary>
internal sealed unsafe class DescriptorShortage : IDisposable
{
    private readonly List<int> _taken = new(4096);
    private readonly TestLibc.ResourceLimit _limit;

    internal DescriptorShortage()
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

    public void Dispose()
    {
        var limit = _limit;
        _ = TestLibc.setrlimit(TestLibc.RLIMIT_NOFILE, &limit);
        _taken.ForEach(static descriptor => _ = TestLibc.close(descriptor));
    }
}
