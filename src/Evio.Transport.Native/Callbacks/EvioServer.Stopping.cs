using System.Diagnostics;
using Evio.Transport.Native.Callbacks;

namespace Evio.Transport.Native;

/// <content>The end of a server.</content>
public sealed partial class EvioServer
{
    /// <summary>
    /// Stops the server: nothing is accepted any more, every connection is closed with its last callback, and all threads end.
    /// </summary>
    /// <param name="deadline">
    /// How long pending output and running callbacks may take. Then connections are reset, and callbacks are not waited for. Defaults to
    /// <see cref="Events.CloseTimeout"/>.
    /// </param>
    /// <param name="cancellationToken">
    /// Ends the deadline early, also that of an earlier call: connections that are still open are reset, a second later at most, if a
    /// callback holds up the close of a listener. It does not cancel the stop. With the token of a host's <c>StopAsync</c>, the server
    /// stops as its host does.
    /// </param>
    /// <returns>A task that completes as <see cref="Completion"/> does.</returns>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="deadline"/> is negative.</exception>
    public Task StopAsync(TimeSpan? deadline = null, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(deadline ?? TimeSpan.Zero, TimeSpan.Zero, nameof(deadline));
        Stop(deadline ?? Events.CloseTimeout);
        return cancellationToken.CanBeCanceled ? EndDeadlineWhenCancelledAsync(cancellationToken) : Completion;
    }

    private async Task EndDeadlineWhenCancelledAsync(CancellationToken cancellationToken)
    {
        using (cancellationToken.UnsafeRegister(static server => ((EvioServer)server!)._deadlineEnded.TrySetResult(), this))
        {
            await Completion.ConfigureAwait(false);
        }
    }

    /// <summary>Stops as <see cref="StopAsync"/> does. A failure is visible through <see cref="Completion"/> only.</summary>
    public async ValueTask DisposeAsync() => await StopAsync().ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);

    private void Stop(TimeSpan deadline)
    {
        if (Interlocked.Exchange(ref _stopping, 1) == 0)
        {
            // On the thread pool, because a loop cannot wait for its own end.
            _ = Task.Run(() => StopCoreAsync(deadline));
            _ = _stoppingToken.CancelAsync();
        }
    }

    private async Task StopCoreAsync(TimeSpan deadline)
    {
        // Each step runs even if the one before has failed, so that no thread and no descriptor is left behind. A step that user code holds
        // up by keeping a loop completes when that code returns.
        var began = Stopwatch.GetTimestamp();
        await RunStepAsync(CloseListenersAsync, Left()).ConfigureAwait(false);
        await RunStepAsync(() => Task.WhenAll(_loops.Select(loop => CloseConnectionsAsync(loop, deadline))), Left()).ConfigureAwait(false);
        await RunStepAsync(() => _group.DisposeAsync().AsTask(), Left()).ConfigureAwait(false);

        if (_failure is { } failure)
        {
            _completion.SetException(failure);
        }
        else
        {
            _completion.SetResult();
        }

        // A listener may wait for a blocked callback of a connection from its backlog.
        async Task CloseListenersAsync()
        {
            var closed = Task.WhenAll(_listeners.Select(static listener => listener.CloseAsync()));
            if (await IsCompletedInTimeAsync(closed, Left()).ConfigureAwait(false)
                || await EventLoopGroup.IsCompletedWithinAsync(closed, MaxListenerWait).ConfigureAwait(false))
            {
                await closed.ConfigureAwait(false);
            }
        }

        TimeSpan Left()
        {
            if (_deadlineEnded.Task.IsCompleted)
            {
                return TimeSpan.Zero;
            }

            var left = deadline - Stopwatch.GetElapsedTime(began);
            return TimeSpan.FromTicks(Math.Clamp(left.Ticks, 0, EventLoopGroup.MaxWait.Ticks));
        }
    }

    /// <summary>Closes the connections of a loop within the deadline, or at once when the deadline is ended early.</summary>
    private async Task CloseConnectionsAsync(ServerLoop loop, TimeSpan deadline)
    {
        var emptied = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        if (!loop.Loop.TryPostInternal(_ => loop.Stop(deadline, emptied), null))
        {
            return;
        }

        if (await Task.WhenAny(emptied.Task, _deadlineEnded.Task).ConfigureAwait(false) == _deadlineEnded.Task)
        {
            _ = loop.Loop.TryPostInternal(_ => loop.Stop(TimeSpan.Zero, emptied), null);
        }

        await emptied.Task.ConfigureAwait(false);
    }

    /// <summary>Waits for a task until the time is up or the deadline is ended early.</summary>
    private async Task<bool> IsCompletedInTimeAsync(Task work, TimeSpan maxWait)
    {
        _ = await Task.WhenAny(EventLoopGroup.IsCompletedWithinAsync(work, maxWait), _deadlineEnded.Task).ConfigureAwait(false);
        return work.IsCompleted;
    }

    private async Task RunStepAsync(Func<Task> step, TimeSpan maxWait)
    {
        try
        {
            var done = step();
            if (await IsCompletedInTimeAsync(done, maxWait).ConfigureAwait(false) || await _group.WaitUnlessHeldAsync(done, TimeSpan.Zero).ConfigureAwait(false))
            {
                await done.ConfigureAwait(false);
            }
        }
        catch (Exception exception)
        {
            _ = Interlocked.CompareExchange(ref _failure, exception, null);
        }
    }
}
