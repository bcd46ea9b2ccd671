using System.Globalization;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class AffinityTests
{
    /// <summary>A slow call beside its loop would compete with it for the loop's processor.</summary>
    [Fact]
    public async Task A_call_beside_its_loop_runs_on_all_processors()
    {
        var permitted = Processors();
        var last = permitted[(permitted.LastIndexOfAny([',', '-']) + 1)..];
        await using var group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = 1,
            LoopAffinity = [int.Parse(last, CultureInfo.InvariantCulture)],
            Scheduling = LoopScheduling.Adaptive,
        });
        var loop = group.Loops[0];

        // Several in a row, so that threads that were bound before become the loop's again.
        for (var i = 0; i < 4; i++)
        {
            Assert.Equal(last, await OnLoopAsync(loop));
            var slow = new SlowCall();
            Assert.True(loop.TryPost(slow));
            Assert.Equal(permitted, await slow.Processors.Task.Within());
        }
    }

    private static async Task<string> OnLoopAsync(EventLoop loop)
    {
        var processors = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(loop.TryPostInternal(_ => processors.SetResult(Processors()), null));
        return await processors.Task.Within();
    }

    private static string Processors()
    {
        const string Key = "Cpus_allowed_list:";
        return File.ReadLines("/proc/thread-self/status").Single(static line => line.StartsWith(Key, StringComparison.Ordinal))[Key.Length..].Trim();
    }

    private sealed class SlowCall : ILoopCall
    {
        internal TaskCompletionSource<string> Processors { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public LoopCallCost Cost { get; set; } = LoopCallCost.Blocking;

        public IThreadPoolWorkItem? Run()
        {
            Execute();
            return null;
        }

        public void Execute() => Processors.SetResult(AffinityTests.Processors());
    }
}
