using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Polling;

namespace Evio.Transport.Native;

/// <summary>The event loops of a server. The group chooses the loop of each connection.</summary>
/// <remarks>All members may be used from any thread.</remarks>
public sealed partial class EventLoopGroup : IAsyncDisposable, IDisposable
{
    /// <summary>The name of the meter of the loops' instruments. An instrument without a listener costs only a check.</summary>
    /// <remarks>
    /// <para>All have the attribute <c>evio.loop.index</c>.</para>
    /// <list type="table">
    /// <item><term>evio.loop.connections</term><description>{connection}: open connections that the loop owns, an up-down
    /// counter</description></item>
    /// <item><term>evio.loop.accepts</term><description>{connection}: accepted by the loop's listening descriptors, whichever loop owns
    /// them then</description></item>
    /// <item><term>evio.loop.accept.failures</term><description>{failure}: accept(2) refused by the system, for lack of descriptors or
    /// memory for example</description></item>
    /// <item><term>evio.loop.io</term><description>By: received and sent; the attribute <c>network.io.direction</c> is <c>receive</c> or
    /// <c>transmit</c></description></item>
    /// <item><term>evio.loop.wakeups</term><description>{wakeup}: system calls that woke the loop out of its wait for other threads'
    /// calls</description></item>
    /// <item><term>evio.loop.takeovers</term><description>{takeover}: threads that lost the loop because a call took long, or was expected
    /// to (<see cref="LoopScheduling.Adaptive"/>)</description></item>
    /// <item><term>evio.loop.busy.time</term><description>s: outside of the wait for events, counted at the end of each
    /// pass</description></item>
    /// </list>
    /// </remarks>
    public const string MeterName = "Evio.Transport";

    private static readonly TimeSpan HeldSampleInterval = TimeSpan.FromMilliseconds(50);

    /// <summary>The longest wait that a timer accepts.</summary>
    internal static readonly TimeSpan MaxWait = TimeSpan.FromDays(24);

    private readonly EventLoop[] _loops;
    private readonly LoopThreads _threads;
    private readonly LoopMonitor? _monitor;
    private readonly LoopMetrics _metrics;
    private readonly LoopBalancer _balancer;
    private readonly Action<EventLoop, Exception>? _onUnhandledException;
    private readonly Action<EventLoop, Exception>? _onLoopFailed;
    private readonly Lazy<Task> _stopped;

    /// <summary>Creates the loops and starts their threads.</summary>
    /// <param name="options">How many, and how they share the connections.</param>
    /// <exception cref="ArgumentException">An option has a value out of its range, or there is no such processor to bind to.</exception>
    /// <exception cref="PlatformNotSupportedException">
    /// See <see cref="IsSupported"/>; or there is no <see cref="EventLoopGroupOptions.Poller"/> of that kind.
    /// </exception>
    /// <exception cref="System.Net.Sockets.SocketException">The kernel created no poller, for lack of descriptors for example.</exception>
    /// <exception cref="InvalidOperationException">The system starts no thread.</exception>
    public EventLoopGroup(EventLoopGroupOptions options)
        : this(options, managed: false, options?.OnUnhandledException)
    {
    }

    /// <param name="options">How many loops, and how they share the connections.</param>
    /// <param name="managed">
    /// Whether the loops watch no descriptors, and only run posted calls and timers: for sockets of the BCL, on any system.
    /// </param>
    /// <param name="onNotificationFailed">
    /// Receives the exception of a notification. Without it the exception is written to the trace.
    /// </param>
    internal EventLoopGroup(EventLoopGroupOptions options, bool managed, Action<EventLoop, Exception>? onNotificationFailed = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.LoopCount is < -1 or > EventLoopGroupOptions.MaxLoopCount)
        {
            throw new ArgumentException(
                $"{nameof(options.LoopCount)} is {options.LoopCount}; it must be from 1 to {EventLoopGroupOptions.MaxLoopCount}, " +
                "0 (one loop) or -1 (one per processor).",
                nameof(options));
        }

        if (!Enum.IsDefined(options.LoadBalance))
        {
            throw new ArgumentException($"{nameof(options.LoadBalance)} is {options.LoadBalance}, which is not defined.", nameof(options));
        }

        if (!Enum.IsDefined(options.Poller))
        {
            throw new ArgumentException($"{nameof(options.Poller)} is {options.Poller}, which is not defined.", nameof(options));
        }

        if (!Enum.IsDefined(options.Scheduling))
        {
            throw new ArgumentException($"{nameof(options.Scheduling)} is {options.Scheduling}, which is not defined.", nameof(options));
        }

        if (options.MaxBlockedThreads < 1)
        {
            throw new ArgumentException($"{nameof(options.MaxBlockedThreads)} is {options.MaxBlockedThreads}; it must be at least 1.", nameof(options));
        }

        if (!managed && !IsSupported)
        {
            throw new PlatformNotSupportedException("Event loops need epoll or kqueue: a 64-bit process on Linux, macOS or FreeBSD.");
        }

        _onUnhandledException = options.OnUnhandledException;
        _onLoopFailed = options.OnLoopFailed;
        var count = options.LoopCount switch
        {
            -1 => Math.Min(Environment.ProcessorCount, EventLoopGroupOptions.MaxLoopCount),
            0 => 1,
            var given => given,
        };

        _loops = new EventLoop[count];
        Notifications = new Notifications(onNotificationFailed is { } receiver ? exception => receiver(_loops[0], exception) : null);
        _threads = new LoopThreads(options, Notifications);
        _metrics = new LoopMetrics(options.MeterFactory, _loops, Notifications);
        _stopped = new Lazy<Task>(StopAsync);
        try
        {
            for (var i = 0; i < count; i++)
            {
                _loops[i] = new EventLoop(this, i, options, _metrics.ForLoop(i), managed ? new WakeOnlyPoller() : Poller.Create(options.Poller), _threads);
            }

            _monitor = CreateMonitor(options);
            foreach (var loop in _loops)
            {
                loop.Start();
            }

            if (options.Scheduling != LoopScheduling.Inline)
            {
                _monitor.Start();
            }
        }
        catch
        {
            Dispose();
            throw;
        }

        HasPollers = !managed;
        _balancer = new LoopBalancer(_loops, options.LoadBalance);
    }

    /// <summary>
    /// Whether this system has a poller that the loops can run on: epoll or kqueue, in a 64-bit process on Linux, macOS or FreeBSD.
    /// </summary>
    public static bool IsSupported => Poller.IsSupported;

    /// <summary>The loops, by <see cref="EventLoop.Index"/>.</summary>
    public IReadOnlyList<EventLoop> Loops => _loops;

    /// <summary>Whether the loops can watch descriptors.</summary>
    internal bool HasPollers { get; }

    internal LoopBalancer Balancer => _balancer;

    /// <summary>Calls the notifications of the group's user.</summary>
    internal Notifications Notifications { get; }

    /// <summary>
    /// Ends all loops. Listeners and connections are closed and their handlers are called, the calls posted before are made, and the
    /// threads are joined.
    /// </summary>
    /// <returns>A task that completes when the last thread has ended.</returns>
    public ValueTask DisposeAsync() => new(_stopped.Value);

    /// <inheritdoc cref="DisposeAsync"/>
    /// <exception cref="InvalidOperationException">The caller is on one of the loops, which would wait for itself.</exception>
    public void Dispose()
    {
        if (_loops.Any(static loop => loop is { IsCurrent: true }))
        {
            throw new InvalidOperationException($"A loop cannot wait for its own end; use {nameof(DisposeAsync)}.");
        }

        _stopped.Value.GetAwaiter().GetResult();
    }

    /// <summary>
    /// Waits for work of the loops. After <paramref name="maxWait"/> it gives up if user code keeps a loop from doing the work: a handler
    /// that blocks with <see cref="LoopScheduling.Inline"/>, for example.
    /// </summary>
    /// <param name="work">The work to wait for. It goes on in any case.</param>
    /// <param name="maxWait">The time for which this waits in any case. Not negative.</param>
    /// <returns>Whether <paramref name="work"/> has completed. Its exception is left to the caller.</returns>
    public async Task<bool> WaitUnlessHeldAsync(Task work, TimeSpan maxWait)
    {
        ArgumentNullException.ThrowIfNull(work);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxWait, TimeSpan.Zero);
        if (await IsCompletedWithinAsync(work, maxWait).ConfigureAwait(false))
        {
            return true;
        }

        // A call that is the same at two samples has kept its loop for all the time between them. A loop that only waits for a processor
        // makes no calls.
        long[] kept = [];
        do
        {
            var before = kept;
            kept = [.. _loops.Select(static loop => loop.Ownership.KeptCall)];
            if (before.Length > 0 && before.Zip(kept).Any(static calls => calls.First != 0 && calls.First == calls.Second))
            {
                return work.IsCompleted;
            }
        }
        while (!await IsCompletedWithinAsync(work, HeldSampleInterval).ConfigureAwait(false));

        return true;
    }

    /// <summary>Waits for a task, up to a limit that <see cref="MaxWait"/> caps, and returns whether it has completed.</summary>
    internal static async Task<bool> IsCompletedWithinAsync(Task work, TimeSpan limit)
    {
        if (work.IsCompleted)
        {
            return true;
        }

        var over = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Timer? timer = null;
        try
        {
            timer = new Timer(
                static over => ((TaskCompletionSource)over!).TrySetResult(), over, limit < MaxWait ? limit : MaxWait, Timeout.InfiniteTimeSpan);
            _ = await Task.WhenAny(work, over.Task).ConfigureAwait(false);
        }
        catch (OutOfMemoryException)
        {
            // The runtime could not start the thread that its timers need.
            await work.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        finally
        {
            timer?.Dispose();
        }

        return work.IsCompleted;
    }

    private LoopMonitor CreateMonitor(EventLoopGroupOptions options)
    {
        if (options.Scheduling != LoopScheduling.Inline)
        {
            foreach (var loop in _loops)
            {
                loop.Dispatcher = new PoolDispatcher(loop);
            }
        }

        var dispatchers = _loops.Select(static loop => loop.Dispatcher).OfType<IMonitored>();
        var monitor = new LoopMonitor(options.Scheduling == LoopScheduling.Adaptive ? _loops.Select(static loop => (IMonitored)loop.Ownership).Concat(dispatchers) : dispatchers, Notifications, "Evio monitor");
        foreach (var loop in _loops)
        {
            loop.Monitor = monitor;
        }

        return monitor;
    }

    private async Task StopAsync()
    {
        await Task.WhenAll(_loops.Where(static loop => loop is not null).Select(static loop => loop.StopAsync())).ConfigureAwait(false);
        _monitor?.Stop();
        _threads.Close();
        _metrics.Dispose();
    }

    internal void OnUnhandledException(EventLoop loop, Exception exception)
    {
        if (_onUnhandledException is { } receiver)
        {
            try
            {
                using (LoopHold.Begin())
                {
                    receiver(loop, exception);
                }
            }
            catch (Exception failure)
            {
                Notifications.ReportOnce(failure);
            }

            return;
        }

        ThreadPool.UnsafeQueueUserWorkItem(
            static exception => System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw((Exception)exception!), exception);
    }

    /// <summary>Reports that a loop's poller has failed for good.</summary>
    internal void OnLoopFailed(EventLoop loop, Exception reason)
    {
        if (_onLoopFailed is { } receiver)
        {
            Notifications.Call(static told => told.receiver(told.loop, told.reason), (receiver, loop, reason));
        }
        else
        {
            OnUnhandledException(loop, reason);
        }
    }
}
