using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Evio.Transport.Testing;

/// <summary>How long a test waits for what must happen. Far longer than it ever takes, so that only a hang runs into it.</summary>
internal static class TestTimeouts
{
    public static TimeSpan Default { get; } = Debugger.IsAttached ? Timeout.InfiniteTimeSpan : TimeSpan.FromSeconds(30);

    /// <summary>Waits for <paramref name="task"/>, and fails the test naming it when it does not end.</summary>
    /// <remarks>
    /// The caller always goes on from the thread pool. A task that a loop completes inline would otherwise carry the rest of the test, and
    /// then the test runner, along on the loop's thread.
    /// </remarks>
    public static async Task OrTimeout(this Task task, [CallerArgumentExpression(nameof(task))] string? awaited = null)
    {
        await task.WaitAsync(Default, TestContext.Current.CancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await Task.Yield();
        if (!task.IsCompleted)
        {
            TestContext.Current.CancellationToken.ThrowIfCancellationRequested();
            throw new TimeoutException($"Still waiting after {Default.TotalSeconds} s for: {awaited}");
        }

        await task;
    }

    /// <inheritdoc cref="OrTimeout(Task, string?)"/>
    public static async Task<T> OrTimeout<T>(this Task<T> task, [CallerArgumentExpression(nameof(task))] string? awaited = null)
    {
        await ((Task)task).OrTimeout(awaited);
        return await task;
    }

    /// <inheritdoc cref="OrTimeout(Task, string?)"/>
    public static Task OrTimeout(this ValueTask task, [CallerArgumentExpression(nameof(task))] string? awaited = null) =>
        task.AsTask().OrTimeout(awaited);

    /// <inheritdoc cref="OrTimeout(Task, string?)"/>
    public static Task<T> OrTimeout<T>(this ValueTask<T> task, [CallerArgumentExpression(nameof(task))] string? awaited = null) =>
        task.AsTask().OrTimeout(awaited);

    /// <summary>Waits until <paramref name="token"/> is cancelled.</summary>
    public static async Task WhenCancelled(this CancellationToken token, [CallerArgumentExpression(nameof(token))] string? awaited = null)
    {
        var cancelled = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var registration = token.UnsafeRegister(static state => ((TaskCompletionSource)state!).SetResult(), cancelled);
        await cancelled.Task.OrTimeout(awaited);
    }
}
