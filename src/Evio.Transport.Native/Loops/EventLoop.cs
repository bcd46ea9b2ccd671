using System.Diagnostics;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Polling;

namespace Evio.Transport.Native;

/// <summary>
/// One poller, and all descriptors, timers and posted calls that belong to it, run by one thread at a time. Loops are made by
/// <see cref="EventLoopGroup"/>.
/// </summary>
/// <remarks>
/// <para>
/// A pass is: what the poller reported, then what was posted, then the timers that are due, then the wait (<see cref="TryGoOn"/>). Where the pass stands is kept here and not on a stack. So another thread can go
/// on with it when the first one does not return from a call (<see cref="LoopOwnership"/>); that one finds out when it returns, and unwinds without touching the loop. On which thread a call of the
/// application runs is decided by <see cref="CallPlacement"/>.
/// </para>
/// </remarks>
public sealed partial class EventLoop
{
    private readonly EventLoopGroup _group;
    private readonly Poller _poller;
    private readonly RegistrationTable _registrations = new();
    private readonly WorkQueue _work = new();
    private readonly TimerQueue _timers;
    private readonly LoopScheduling _scheduling;
    private readonly CallPlacement _placement;
    private readonly int? _processor;
    private readonly TaskCompletionSource _started = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _connectionCount;
    private TimeSpan _pollingDeferred;
    private bool _stopping;

    // No call that may block is begun any more, so that the thread that ends the loop keeps it. Read by other threads, too.
    private volatile bool _ending;

    // Where the pass is: how many events the last wait brought, and the next of them. Which posted call is the next one, the queue knows.
    private int _eventCount;
    private int _nextEvent;
    private long _passBegan;

    internal EventLoop(EventLoopGroup group, int index, EventLoopGroupOptions options, LoopMeter meter, Poller poller, LoopThreads threads)
    {
        _group = group;
        Index = index;
        _poller = poller;
        Meter = meter;
        _timers = new TimerQueue(() => _ = TryPostWhileEnding(static loop => ((EventLoop)loop!)._timers.TidyAsAsked(), this));
        _scheduling = options.Scheduling;
        Ownership = new LoopOwnership(this, threads, IsAdaptive);
        _placement = new CallPlacement(this, Ownership, threads, _scheduling);
        _processor = options.Affinity.Count > 0 ? options.Affinity[index % options.Affinity.Count] : null;
    }

    /// <summary>The loop's position in its group, from 0.</summary>
    public int Index { get; }

    /// <summary>Whether the caller runs on this loop. In an adaptive group, and in code that may block, this can change at any moment.</summary>
    public bool IsCurrent => Ownership.IsCurrent;

    /// <summary>
    /// Whether the loop has ended, or is about to: its group is disposed, or its poller has failed (<see cref="EventLoopGroupOptions.OnLoopFailed"/>). It gets no connections
    /// any more. From any thread.
    /// </summary>
    public bool HasEnded => _ending;

    /// <summary>Whether the loop has ended because its poller has failed.</summary>
    internal bool HasFailed { get; private set; }

    /// <summary>Whether a thread that does not come back from a call loses the loop.</summary>
    internal bool IsAdaptive => _scheduling == LoopScheduling.Adaptive;

    /// <summary>Which thread the loop belongs to.</summary>
    internal LoopOwnership Ownership { get; }

    /// <summary>Who looks after the calls of the group's loops, and after what is left for later. Set before the loop starts.</summary>
    internal LoopMonitor Monitor { get; set; } = null!;

    /// <summary>What makes the loop's calls on the thread pool; <see langword="null"/> when the loop's thread makes all of them.</summary>
    internal PoolDispatcher? Dispatcher { get; set; }

    /// <summary>Whether the loop has made a call itself since it last waited. On the loop.</summary>
    internal bool HasMadeCalls { get; set; }

    /// <summary>The number of timers that the loop keeps, with those called off that it has not removed yet.</summary>
    internal int TimerCount => _timers.Count;

    /// <summary>The number of open connections that the loop owns, those on their way to it included. To be read from any thread.</summary>
    public int ConnectionCount => Volatile.Read(ref _connectionCount);

    /// <summary>Has the loop make a call, after those posted before. To be used from any thread, also from the loop's own.</summary>
    /// <param name="callback">
    /// The call. Unless the group is adaptive it must not block. There it may, and those posted later are made meanwhile, beside it: what calls share needs
    /// synchronization. What it throws goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
    /// </param>
    /// <param name="state">Handed to <paramref name="callback"/>.</param>
    /// <returns>False when the loop has ended; the call will not be made.</returns>
    public bool TryPost(Action<object?> callback, object? state)
    {
        ArgumentNullException.ThrowIfNull(callback);
        return TryPost(new WorkItem(callback, state, MayBlock: true), acceptWhileEnding: false);
    }

    /// <summary>Has the loop <see cref="Invoke"/> a call, after what was posted before. To be used from any thread.</summary>
    /// <param name="call">The code.</param>
    /// <returns>False when the loop has ended; the call will not be made.</returns>
    public bool TryPost(ILoopCall call)
    {
        ArgumentNullException.ThrowIfNull(call);
        return TryPostInternal(static call => LoopThread.Current!.Loop!.Invoke((ILoopCall)call!), call);
    }

    /// <summary>Has the loop make a call of the reactor's, which does not block and keeps the loop.</summary>
    internal bool TryPostInternal(Action<object?> callback, object? state) => TryPost(new WorkItem(callback, state), acceptWhileEnding: false);

    /// <summary>The same for one that it also takes while it ends: a close, a connection that is handed over.</summary>
    internal bool TryPostWhileEnding(Action<object?> callback, object? state) => TryPost(new WorkItem(callback, state), acceptWhileEnding: true);

    /// <summary>
    /// Makes a call of the reactor's on the loop: at once if the caller is the owner, otherwise posted, also while the loop ends. After the loop's end the caller makes it: nothing else uses then what
    /// was the loop's.
    /// </summary>
    internal void RunOnLoop(Action<object?> callback, object? state)
    {
        using var owner = Ownership.Enter();
        if (owner.IsOwner || !TryPostWhileEnding(callback, state))
        {
            callback(state);
        }
    }

    private bool TryPost(WorkItem item, bool acceptWhileEnding)
    {
        if (!_work.TryEnqueue(item, out var mustWake, acceptWhileEnding))
        {
            return false;
        }

        if (mustWake)
        {
            _poller.Wake();
            Meter.Woken();
        }

        return true;
    }

    /// <summary>Has the loop make a call after a delay. To be used from any thread.</summary>
    /// <param name="delay">At least this long; the loop's time has the resolution of a millisecond.</param>
    /// <param name="callback">
    /// The call. Unless the group is adaptive it must not block. What it throws goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
    /// </param>
    /// <param name="state">Handed to <paramref name="callback"/>.</param>
    /// <returns>The timer, which can be called off. Timers that are pending when the loop ends are dropped.</returns>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="delay"/> is negative.</exception>
    public LoopTimer Schedule(TimeSpan delay, Action<object?> callback, object? state)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(delay, TimeSpan.Zero);
        ArgumentNullException.ThrowIfNull(callback);
        return Add(new LoopTimer(_timers, delay, callback, state, mayBlock: true));
    }

    /// <summary>The same for a call of the reactor's, which does not block and keeps the loop.</summary>
    internal LoopTimer ScheduleInternal(TimeSpan delay, Action<object?> callback, object? state) =>
        Add(new LoopTimer(_timers, delay, callback, state, mayBlock: false));

    private LoopTimer Add(LoopTimer timer)
    {
        using var owner = Ownership.Enter();
        if (owner.IsOwner)
        {
            _timers.Add(timer);
        }
        else
        {
            // A loop that has ended drops its timers.
            _ = TryPostWhileEnding(
                static state =>
                {
                    var (loop, timer) = ((EventLoop, LoopTimer))state!;
                    loop._timers.Add(timer);
                },
                (this, timer));
        }

        return timer;
    }

    /// <summary>
    /// Has another thread look after something that the caller has left for later, and do it if it is still to be done a few milliseconds later, whatever the caller does meanwhile. To be
    /// used from any thread.
    /// </summary>
    /// <param name="watched">
    /// Looked at again and again, until it says that there is nothing more to look after, or the group is disposed. What it throws is reported, once.
    /// </param>
    public void Watch(IWatched watched)
    {
        ArgumentNullException.ThrowIfNull(watched);
        Monitor.Watch(watched);
    }

    /// <summary>
    /// Runs code that may block, where <see cref="EventLoopGroupOptions.Scheduling"/> says: on the calling thread, the loop's, before this returns; or on the
    /// thread pool. In an adaptive group code that computed for long the last time may also run later, and on another thread of the group.
    /// </summary>
    /// <param name="call">
    /// The code. What it throws comes out of here; or, where it ran later, goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>; or, where it was at once left to the thread
    /// pool, ends the process as anything unhandled there.
    /// </param>
    /// <remarks>
    /// To be used on the loop, outside of such code; elsewhere the code runs on the thread pool, or, in a group that is <see cref="LoopScheduling.Inline"/>, at once.
    /// In an adaptive group the caller may have lost the loop when this returns (<see cref="IsCurrent"/>), and must then leave alone what belongs to it.
    /// </remarks>
    public void Invoke(ILoopCall call)
    {
        ArgumentNullException.ThrowIfNull(call);
        _placement.Run(call);
    }

    /// <summary>
    /// Has the loop wait for posted calls, and not look at its descriptors, the next time that it would wait: for those who have not yet done what it
    /// found before, so that it does not interrupt them and finds more at once. On the loop.
    /// </summary>
    /// <param name="limit">The longest wait. It ends with the first call that is posted and when a timer is due.</param>
    internal void DeferPolling(TimeSpan limit)
    {
        Debug.Assert(IsCurrent);
        _pollingDeferred = limit;
    }

    /// <summary>Where the loop's doings are counted. From any thread.</summary>
    internal LoopMeter Meter { get; }

    internal void ConnectionAdded() => Interlocked.Increment(ref _connectionCount);

    internal void ConnectionRemoved() => Interlocked.Decrement(ref _connectionCount);

    /// <summary>Makes a target known, which is told when the loop ends, and gets the events of what is watched under its token. On the loop.</summary>
    internal ulong Register(IPollTarget target)
    {
        Debug.Assert(IsCurrent && !LoopThread.Current!.InCall);
        return _registrations.Add(target);
    }

    /// <summary>Watches a stream, for as long as it is open. On the loop.</summary>
    /// <returns>0, or the error number.</returns>
    internal int WatchStream(ulong token, int descriptor) => _poller.RegisterStream(descriptor, token);

    /// <summary>Watches a listener. On the loop.</summary>
    /// <returns>0, or the error number.</returns>
    internal int WatchListener(ulong token, int descriptor) => _poller.RegisterListener(descriptor, token);

    /// <summary>Ends the watch of a descriptor that stays open; one that is closed the kernel forgets. On the loop.</summary>
    internal void Unwatch(int descriptor) => _poller.Deregister(descriptor);

    /// <summary>Delivers events as if the poller had reported them. On the loop.</summary>
    internal void Raise(ulong token, ReadyEvents events)
    {
        if (_registrations.Find(token) is { } target)
        {
            Deliver(target, events);
        }
    }

    /// <summary>Forgets a target: no event is delivered under its token any more. On the loop.</summary>
    internal void Forget(ulong token) => _registrations.Remove(token);
}
