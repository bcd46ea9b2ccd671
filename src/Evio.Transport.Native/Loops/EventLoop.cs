using System.Diagnostics;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Polling;

namespace Evio.Transport.Native;

/// <summary>
/// One poller with its descriptors, timers and posted calls, run by one thread at a time. An <see cref="EventLoopGroup"/> makes the loops.
/// </summary>
/// <remarks>
/// <para>
/// A pass handles the events that the poller reported, then the posted calls, then the timers that are due, and then waits
/// (<see cref="TryGoOn"/>). The position within the pass is kept in this object, not on a stack. When a thread does not return from a call,
/// another thread goes on from that position (<see cref="LoopOwnership"/>). The first thread notices when it returns, and unwinds without
/// touching the loop. It only flushes its own <see cref="CallBatch"/>.
/// </para>
/// <para><see cref="CallPlacement"/> decides on which thread an <see cref="ILoopCall"/> runs.</para>
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

    // While the loop ends, no call is begun in which it could be lost: the thread that ends it keeps it. Read from any thread.
    private volatile bool _ending;

    // The position within the pass: the number of events that the last wait brought, and the next of them. The work queue knows its own
    // position.
    private int _eventCount;
    private int _nextEvent;
    private long _passBegan;

    internal EventLoop(EventLoopGroup group, int index, EventLoopGroupOptions options, LoopMeter meter, Poller poller, LoopThreads threads)
    {
        _group = group;
        Index = index;
        _poller = poller;
        Meter = meter;
        TaskScheduler = new LoopTaskScheduler(this);
        _timers = new TimerQueue(() => _ = TryPostWhileEnding(static loop => ((EventLoop)loop!)._timers.CompactIfRequested(), this));
        _scheduling = options.Scheduling;
        Ownership = new LoopOwnership(this, threads, IsAdaptive);
        _placement = new CallPlacement(this, Ownership, threads, _scheduling);
        _processor = options.LoopAffinity.Count > 0 ? options.LoopAffinity[index % options.LoopAffinity.Count] : null;
    }

    /// <summary>The loop's position in its group, from 0.</summary>
    public int Index { get; }

    /// <summary>
    /// Whether the caller runs on this loop. In code that may block, in an adaptive group, the answer can change at any moment.
    /// </summary>
    public bool IsCurrent => Ownership.IsCurrent;

    /// <summary>
    /// Whether the loop has ended, or is about to: its group is disposed, or its poller has failed
    /// (<see cref="EventLoopGroupOptions.OnLoopFailed"/>). It gets no connections any more. From any thread.
    /// </summary>
    public bool HasEnded => _ending;

    /// <summary>Whether the loop has ended because its poller has failed.</summary>
    internal bool HasFailed { get; private set; }

    /// <summary>Whether a thread that does not return from a call loses the loop.</summary>
    internal bool IsAdaptive => _scheduling == LoopScheduling.Adaptive;

    /// <summary>The protocol by which the loop changes threads.</summary>
    internal LoopOwnership Ownership { get; }

    /// <summary>The group's monitor of calls and of deferred work. Set before the loop starts.</summary>
    internal LoopMonitor Monitor { get; set; } = null!;

    /// <summary>Makes the loop's calls on the thread pool; <see langword="null"/> when the loop's thread makes all of them.</summary>
    internal PoolDispatcher? Dispatcher { get; set; }

    /// <summary>Whether the loop has made a call itself since it last waited. On the loop.</summary>
    internal bool HasMadeCalls { get; set; }

    /// <summary>The number of timers that the loop keeps, with those called off that it has not removed yet.</summary>
    internal int TimerCount => _timers.Count;

    /// <summary>The number of open connections that the loop owns, those on their way to it included. To be read from any thread.</summary>
    public int ConnectionCount => Volatile.Read(ref _connectionCount);

    /// <summary>Runs tasks on the loop, in order with the posted calls. From any thread.</summary>
    /// <remarks>
    /// What a task awaits, without <c>ConfigureAwait(false)</c>, continues on the loop: <c>Task.Factory.StartNew(RunAsync, token,
    /// TaskCreationOptions.None, loop.TaskScheduler).Unwrap()</c>. For blocking the rules of
    /// <see cref="TryPost(Action{object?}, object?)"/> hold. Tasks that are queued when the loop has ended run on the thread pool.
    /// </remarks>
    public TaskScheduler TaskScheduler { get; }

    /// <summary>Has the loop make a call, after those posted before. To be used from any thread, also from the loop's own.</summary>
    /// <param name="callback">
    /// The call. Unless the group is adaptive it must not block. There it may, and those posted later are made meanwhile, beside it: what
    /// calls share needs synchronization. What it throws goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
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

    /// <summary>
    /// Posts a call of this library's own. The call itself does not block. It may <see cref="Invoke"/> one that does, and lose the loop in
    /// it.
    /// </summary>
    internal bool TryPostInternal(Action<object?> callback, object? state) => TryPost(new WorkItem(callback, state), acceptWhileEnding: false);

    /// <summary>The same for one that it also takes while it ends: a close, a connection that is handed over.</summary>
    internal bool TryPostWhileEnding(Action<object?> callback, object? state) => TryPost(new WorkItem(callback, state), acceptWhileEnding: true);

    /// <summary>
    /// Makes a call of this library's own on the loop: at once if the caller is the owner, otherwise as a posted call, also while the loop
    /// ends. After the loop's end the call runs on the calling thread, because no other thread uses the loop's state then.
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
    /// The call. Unless the group is adaptive it must not block. What it throws goes to
    /// <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
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

    /// <summary>The same for a call of this library's own, which itself does not block.</summary>
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
    /// Has the monitor of the loops check deferred work until it is done, so that it is finished even if the caller's thread blocks. From
    /// any thread.
    /// </summary>
    /// <param name="watched">
    /// The work. It is checked every one to four milliseconds, until it answers <see langword="false"/> or the group is disposed. Its first
    /// exception goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
    /// </param>
    public void Watch(IWatched watched)
    {
        ArgumentNullException.ThrowIfNull(watched);
        Monitor.Watch(watched);
    }

    /// <summary>
    /// Runs code that may block, where <see cref="EventLoopGroupOptions.Scheduling"/> says: on the calling thread, the loop's, before this
    /// returns; or on the thread pool. In an adaptive group code that computed for long the last time may also run later, and on another
    /// thread of the group.
    /// </summary>
    /// <param name="call">
    /// The code. An exception of code that ran here comes out of this method. That of CPU-bound code goes to
    /// <see cref="EventLoopGroupOptions.OnUnhandledException"/>. That of code which was given to the thread pool ends the process, as any
    /// unhandled exception there.
    /// </param>
    /// <remarks>
    /// To be used on the loop, outside of such code; elsewhere the code runs on the thread pool, or, in a group that is
    /// <see cref="LoopScheduling.Inline"/>, at once. In an adaptive group the caller may have lost the loop when this returns
    /// (<see cref="IsCurrent"/>), and must then leave alone what belongs to it.
    /// </remarks>
    public void Invoke(ILoopCall call)
    {
        ArgumentNullException.ThrowIfNull(call);
        _placement.Run(call);
    }

    /// <summary>
    /// Has the next wait of the loop ignore descriptors and wait for posted calls only. The workers that still handle the events of this
    /// pass are not interrupted then, and the next poll brings more events at once. On the loop.
    /// </summary>
    /// <param name="limit">The longest wait. A posted call or a due timer ends it early.</param>
    internal void DeferPolling(TimeSpan limit)
    {
        Debug.Assert(IsCurrent);
        _pollingDeferred = limit;
    }

    /// <summary>The loop's metrics. From any thread.</summary>
    internal LoopMeter Meter { get; }

    internal void ConnectionAdded() => Interlocked.Increment(ref _connectionCount);

    internal void ConnectionRemoved() => Interlocked.Decrement(ref _connectionCount);

    /// <summary>
    /// Adds a target, which is told when the loop ends, and gets the events of descriptors that are registered with its token.
    /// </summary>
    internal ulong Add(in LoopOwner owner, IPollTarget target)
    {
        owner.Verify(Ownership);
        return _registrations.Add(target);
    }

    /// <summary>Registers a stream with the poller, for as long as it is open.</summary>
    /// <returns>0, or the error number.</returns>
    internal int RegisterStream(in LoopOwner owner, ulong token, int descriptor)
    {
        owner.Verify(Ownership);
        return _poller.RegisterStream(descriptor, token);
    }

    /// <summary>Registers a listener with the poller.</summary>
    /// <returns>0, or the error number.</returns>
    internal int RegisterListener(in LoopOwner owner, ulong token, int descriptor)
    {
        owner.Verify(Ownership);
        return _poller.RegisterListener(descriptor, token);
    }

    /// <summary>Takes a descriptor that stays open from the poller; one that is closed the kernel takes by itself.</summary>
    internal void Deregister(in LoopOwner owner, int descriptor)
    {
        owner.Verify(Ownership);
        _poller.Deregister(descriptor);
    }

    /// <summary>Delivers events as if the poller had reported them. On the loop.</summary>
    internal void Raise(ulong token, ReadyEvents events)
    {
        if (_registrations.Find(token) is { } target)
        {
            Deliver(target, events);
        }
    }

    /// <summary>
    /// Removes a target: no event is delivered under its token any more. Without effect for <see cref="Poller.WakeToken"/>, the token of a
    /// target that was never added, after the loop's end, too.
    /// </summary>
    internal void Remove(in LoopOwner owner, ulong token)
    {
        if (token == Poller.WakeToken)
        {
            return;
        }

        owner.Verify(Ownership);
        _registrations.Remove(token);
    }
}
