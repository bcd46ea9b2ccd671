using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Evio.Transport.Testing;

/// <summary>Waits for a condition that nothing announces.</summary>
internal static class Eventually
{
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(10);
    private static readonly TimeSpan Calm = TimeSpan.FromMilliseconds(250);

    /// <summary>Polls until <paramref name="condition"/> holds.</summary>
    public static Task HoldsAsync(
        Func<bool> condition, Func<string>? state = null, [CallerArgumentExpression(nameof(condition))] string? awaited = null) =>
        HoldsAsync(() => Task.FromResult(condition()), state, awaited);

    /// <inheritdoc cref="HoldsAsync(Func{bool}, Func{string}?, string?)"/>
    public static async Task HoldsAsync(
        Func<Task<bool>> condition, Func<string>? state = null, [CallerArgumentExpression(nameof(condition))] string? awaited = null)
    {
        var started = Stopwatch.GetTimestamp();
        while (!await condition())
        {
            if (TestTimeouts.Default != Timeout.InfiniteTimeSpan && Stopwatch.GetElapsedTime(started) > TestTimeouts.Default)
            {
                throw new TimeoutException($"Still not so after {TestTimeouts.Default.TotalSeconds} s: {awaited} {state?.Invoke()}");
            }

            await Task.Delay(Interval, TestContext.Current.CancellationToken);
        }
    }

    /// <summary>Polls until <paramref name="value"/> is positive and no longer moves.</summary>
    public static async Task<long> SettlesAsync(Func<long> value, [CallerArgumentExpression(nameof(value))] string? awaited = null)
    {
        long last = 0;
        var since = Stopwatch.GetTimestamp();
        await HoldsAsync(
            () =>
            {
                var now = value();
                if (now != last)
                {
                    (last, since) = (now, Stopwatch.GetTimestamp());
                }

                return now > 0 && Stopwatch.GetElapsedTime(since) > Calm;
            },
            () => $"(now {last})",
            awaited);
        return last;
    }
}
