using BenchmarkDotNet.Attributes;
using Evio.Transport.Native;

namespace Evio.Transport.Benchmarks;

/// <summary>What it costs to reach a loop from another thread.</summary>
[MemoryDiagnoser]
public class LoopBenchmarks
{
    private const int Batch = 1000;

    private static readonly Action<object?> Signal = static state => ((ManualResetEventSlim)state!).Set();
    private static readonly Action<object?> Nothing = static _ => { };

    private readonly ManualResetEventSlim _done = new();
    private EventLoopGroup _group = null!;
    private EventLoop _loop = null!;

    [GlobalSetup]
    public void Start()
    {
        _group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 });
        _loop = _group.Loops[0];
    }

    [GlobalCleanup]
    public void Stop()
    {
        _group.Dispose();
        _done.Dispose();
    }

    /// <summary>The loop blocks: one write to its eventfd, its wake-up, and the signal back.</summary>
    [Benchmark]
    public void WakeUp()
    {
        _done.Reset();
        Post(Signal);
        _done.Wait();
    }

    /// <summary>A call among many: the loop is awake, and only the queue is at work.</summary>
    [Benchmark(OperationsPerInvoke = Batch)]
    public void PostBatch()
    {
        _done.Reset();
        for (var i = 1; i < Batch; i++)
        {
            Post(Nothing);
        }

        Post(Signal);
        _done.Wait();
    }

    private void Post(Action<object?> call)
    {
        if (!_loop.TryPost(call, _done))
        {
            throw new InvalidOperationException("The loop has ended.");
        }
    }
}
