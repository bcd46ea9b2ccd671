using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Evio.Transport.Native.Tests.Support;

/// <summary>Waiting for what must happen. The limit is no expectation of speed: it only turns a hang into a failure.</summary>
internal static class Waiting
{
    internal static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    internal static Task Within(this Task task) => task.WaitAsync(Limit, CancellationToken.None);

    internal static Task<T> Within<T>(this Task<T> task) => task.WaitAsync(Limit, CancellationToken.None);

    internal static void Await(this ManualResetEventSlim signal, [CallerArgumentExpression(nameof(signal))] string what = "") =>
        Assert.True(signal.Wait(Limit, CancellationToken.None), $"'{what}' was not set.");

    internal static void Await(this SemaphoreSlim semaphore, [CallerArgumentExpression(nameof(semaphore))] string what = "") =>
        Assert.True(semaphore.Wait(Limit, CancellationToken.None), $"'{what}' was not released.");

    /// <summary>Polls a condition that no event announces.</summary>
    internal static void Until(Func<bool> condition, [CallerArgumentExpression(nameof(condition))] string what = "")
    {
        var start = Stopwatch.GetTimestamp();
        while (!condition())
        {
            Assert.True(Stopwatch.GetElapsedTime(start) < Limit, $"It did not come to '{what}'.");
            Thread.Sleep(1);
        }
    }

    /// <summary>Asks something that is the loop's, on the loop: elsewhere the answer may be from the middle of a change.</summary>
    internal static Task<T> OnLoopAsync<T>(EventLoop loop, Func<T> question)
    {
        var answer = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(loop.TryPost(_ => answer.SetResult(question()), null));
        return answer.Task.Within();
    }

    /// <summary>Runs a call that may block on a thread of its own.</summary>
    internal static Task OnThread(Action call) => OnThread(() =>
    {
        call();
        return true;
    });

    /// <inheritdoc cref="OnThread(Action)"/>
    internal static Task<T> OnThread<T>(Func<T> call) =>
        Task.Factory.StartNew(call, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    /// <summary>Waits until all participants are there.</summary>
    internal static void Join(this Barrier barrier) =>
        Assert.True(barrier.SignalAndWait(Limit, CancellationToken.None), "Not all threads came to the barrier.");

    /// <summary>Runs an action on several threads that begin together, and rethrows what any of them threw.</summary>
    internal static void InParallel(int threads, Action<int> action)
    {
        using var barrier = new Barrier(threads);
        var tasks = Enumerable.Range(0, threads).Select(i => OnThread(() =>
        {
            barrier.Join();
            action(i);
        })).ToArray();
        Assert.True(Task.WaitAll(tasks, 4 * Limit), "The threads did not end.");
    }
}
