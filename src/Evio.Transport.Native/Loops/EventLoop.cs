using System.Diagnostics;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Polling;

namespace Evio.Transport.Native;

/// <summary>
/// One poller, and all descriptors, timers and posted calls that belong to it, run by one thread at a time. Loops are made by
/// <see cref="EventLoopGroup"/>.
/// </summary>
/// <remarks>
/// <para>
/// Everything of the loop belongs to the thread whose turn it is (<see cref="TurnTaking"/>). In an adaptive group that thread goes into a call before it runs
/// code that may block, and comes back after it. If it does not come back in time the turn is another thread's, which goes on exactly where the
/// first one went into the call: with the rest of the events, of the posted calls and timers, whose positions are kept here and not on a stack. The late thread
/// finds on its return that it has no turn, and unwinds without touching the loop.
/// </para>
/// <para>
/// So whether the caller is on the loop is always asked of the loop, at the moment: <see cref="Enter"/> says so, and as long as <see cref="Leave"/> has not been
/// called it stays true.
/// </para>
/// </remarks>
public sealed class EventLoop : IMonitored
{
    /// <summary>
    /// A call that takes longer, after it has cost its thread the loop if it did, is expected to take long the next time. A thread that was only interrupted, on a
    /// busy machine, mostly comes back earlier.
    /// </summary>
    internal static readonly TimeSpan LongCall = TimeSpan.FromMilliseconds(4);

    private readonly EventLoopGroup _group;
    private readonly Poller _poller;
    private readonly RegistrationTable _registrations = new();
    private readonly WorkQueue _work = new();
    private readonly TimerQueue _timers;
    private readonly LoopScheduling _scheduling;
    private readonly LoopThreads _threads;
    private readonly int? _processor;
    private readonly TaskCompletionSource _started = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _connectionCount;
    private TimeSpan _pollingDeferred;
    private bool _stopping;

    // No call that may block is begun any more, so that the thread that ends the loop keeps it. Read by other threads, too.
    private volatile bool _ending;
    private TurnTaking _turns;

    // Where the pass is: how many events the last wait brought, and the next of them. Which posted call is the next one, the queue knows.
    private int _eventCount;
    private int _nextEvent;
    private long _passBegan;

    // The thread whose turn it is, as who gave it the turn has written it; and what the monitor saw at the last look.
    private LoopThread? _thread;
    private long _seen;

    internal EventLoop(EventLoopGroup group, int index, EventLoopGroupOptions options, LoopMeter meter, Poller poller, LoopThreads threads)
    {
        _group = group;
        Index = index;
        _poller = poller;
        Meter = meter;
        _threads = threads;
        _timers = new TimerQueue(() => _ = TryPostOwn(static loop => ((EventLoop)loop!)._timers.TidyAsAsked(), this));
        _scheduling = options.Scheduling;
        _processor = options.Affinity.Count > 0 ? options.Affinity[index % options.Affinity.Count] : null;
    }

    /// <summary>The loop's position in its group, from 0.</summary>
    public int Index { get; }

    /// <summary>Whether the caller runs on this loop. In an adaptive group, and in code that may block, this can change at any moment.</summary>
    public bool IsCurrent => LoopThread.Current is { } thread && thread.Loop == this && _turns.IsTurn(thread.Turn);

    /// <summary>
    /// Whether the loop has ended, or is about to: its group is disposed, or its poller has failed (<see cref="EventLoopGroupOptions.OnLoopFailed"/>). It gets no connections
    /// any more. From any thread.
    /// </summary>
    public bool HasEnded => _ending;

    /// <summary>Whether the loop has ended because its poller has failed.</summary>
    internal bool HasFailed { get; private set; }

    /// <summary>Whether a thread that does not come back from a call loses the loop.</summary>
    internal bool IsAdaptive => _scheduling == LoopScheduling.Adaptive;

    /// <summary>Whether so many threads are late that this loop leaves calls that may block to the thread pool. On the loop.</summary>
    internal bool IsExhausted => _threads.IsExhausted && !_ending;

    /// <summary>Who looks after the calls of the group's loops, and after what is left for later. Set before the loop starts.</summary>
    internal LoopMonitor Monitor { get; set; } = null!;

    /// <summary>What makes the loop's calls on the thread pool; <see langword="null"/> when the loop's thread makes all of them.</summary>
    internal PoolDispatcher? Dispatcher { get; set; }

    /// <summary>Whether the loop has made a call itself since it last waited. On the loop.</summary>
    internal bool HasMadeCalls { get; private set; }

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
        return TryPost(new WorkItem(callback, state, MayBlock: true), isOwn: false);
    }

    /// <summary>Has the loop <see cref="Invoke"/> a call, after what was posted before. To be used from any thread.</summary>
    /// <param name="call">The code.</param>
    /// <returns>False when the loop has ended; the call will not be made.</returns>
    public bool TryPost(ILoopCall call)
    {
        ArgumentNullException.ThrowIfNull(call);
        return TryPostInternal(static call => LoopThread.Current!.Loop!.Invoke((ILoopCall)call!), call);
    }

    /// <summary>Has the loop make a call of the reactor's, which does not block and keeps the turn.</summary>
    internal bool TryPostInternal(Action<object?> callback, object? state) => TryPost(new WorkItem(callback, state), isOwn: false);

    /// <summary>The same for one that it also takes while it ends: a close, a connection that is handed over.</summary>
    internal bool TryPostOwn(Action<object?> callback, object? state) => TryPost(new WorkItem(callback, state), isOwn: true);

    private bool TryPost(WorkItem item, bool isOwn)
    {
        if (!_work.TryEnqueue(item, out var mustWake, isOwn))
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

    /// <summary>The same for a call of the reactor's, which does not block and keeps the turn.</summary>
    internal LoopTimer ScheduleInternal(TimeSpan delay, Action<object?> callback, object? state) =>
        Add(new LoopTimer(_timers, delay, callback, state, mayBlock: false));

    private LoopTimer Add(LoopTimer timer)
    {
        var entry = Enter();
        if (entry != LoopEntry.Refused)
        {
            _timers.Add(timer);
            Leave(entry);
        }
        else
        {
            // A loop that has ended drops its timers.
            _ = TryPostOwn(
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
        switch (_scheduling)
        {
            case LoopScheduling.ThreadPool:
                Dispatcher!.Add(call);
                break;
            case LoopScheduling.Adaptive when IsExhausted || ThreadThatMayCall is null:
                ThreadPool.UnsafeQueueUserWorkItem(call, preferLocal: false);
                break;
            case LoopScheduling.Adaptive:
                InvokeByCost(call);
                break;
            default:
                RunKept(call);
                break;
        }
    }

    /// <summary>Makes a call on the calling thread, which keeps its loop.</summary>
    private void RunKept(ILoopCall call)
    {
        LoopThread.NoteKeptCall(1);
        try
        {
            if (LoopThread.Current is { } thread && thread.Loop == this)
            {
                thread.Calls.Leave(call.Run(), this);
            }
            else
            {
                call.Execute();
            }
        }
        finally
        {
            LoopThread.NoteKeptCall(-1);
        }
    }

    /// <summary>Makes a call where it disturbs others the least, as far as the last time tells. By the thread whose turn it is.</summary>
    private void InvokeByCost(ILoopCall call)
    {
        switch (call.Cost)
        {
            case LoopCallCost.Computing:
                InvokeComputing(call);
                break;
            case LoopCallCost.Blocking:
                InvokeBeside(call, InvokeMeasured);
                break;
            case LoopCallCost.Awaiting when !Dispatcher!.IsStuck:
                Dispatcher.Add(call);
                break;
            default:
                InvokeHere(call);
                break;
        }
    }

    /// <summary>Makes a call that is expected to be brief. By the thread whose turn it is, which may have lost the loop afterwards.</summary>
    private void InvokeHere(ILoopCall call)
    {
        HasMadeCalls = true;
        var thread = LoopThread.Current!;
        IThreadPoolWorkItem? rest;
        BeginCall(thread);
        try
        {
            rest = call.Run();
        }
        finally
        {
            if (!TryReturn(thread))
            {
                call.Cost = Stopwatch.GetElapsedTime(thread.LateSince) > LongCall ? LoopCallCost.Blocking : LoopCallCost.Brief;
            }
        }

        thread.Calls.Leave(rest, this);
    }

    /// <summary>Makes a call that took long the last time, on a thread that has no loop, or none any more.</summary>
    private static void InvokeMeasured(ILoopCall call)
    {
        var before = ThreadTimes.Current;
        var began = Stopwatch.GetTimestamp();
        try
        {
            call.Execute();
        }
        finally
        {
            call.Cost = CostOf(Stopwatch.GetElapsedTime(began), ThreadTimes.Current - before);
        }
    }

    /// <summary>What a call cost, of which not all was its own: on a busy machine others had the processor meanwhile.</summary>
    internal static LoopCallCost CostOf(TimeSpan elapsed, ThreadTimes spent)
    {
        // What is taken one after the other may be interrupted in between: it waited for no longer than it did not run.
        var own = elapsed - (spent.Waited ?? TimeSpan.Zero);
        own = own > spent.Ran ? own : spent.Ran;
        return own <= LongCall ? LoopCallCost.Brief : spent.Ran > own * 0.75 ? LoopCallCost.Computing : LoopCallCost.Blocking;
    }

    /// <summary>Makes a call that is expected to compute, beside the loop, when there is a processor for it.</summary>
    private void InvokeComputing(ILoopCall call)
    {
        if (_threads.Computing.BeginOrWait(call) is not { } place)
        {
            InvokeBeside(call, MakeComputing);
            return;
        }

        _ = ScheduleInternal(
            ComputingCalls.Patience,
            static state =>
            {
                var (loop, place) = ((EventLoop, LinkedListNode<ILoopCall>))state!;
                if (loop._threads.Computing.TryWithdraw(place))
                {
                    loop.InvokeBeside(place.Value, loop.MakeMeasured);
                }
            },
            (this, place));
    }

    /// <summary>Makes a call on this thread, which gives its loop to another one; or on the thread pool, if it has to keep it or there is no other one to be had.</summary>
    private void InvokeBeside(ILoopCall call, Action<ILoopCall> make)
    {
        var isPassedOn = false;
        try
        {
            isPassedOn = !IsExhausted && TryPassOn();
        }
        finally
        {
            if (!isPassedOn)
            {
                ThreadPool.UnsafeQueueUserWorkItem(make, call, preferLocal: false);
            }
        }

        if (isPassedOn)
        {
            LoopThread.Current!.Calls.Finish(this);
            make(call);
        }
    }

    private void MakeMeasured(ILoopCall call)
    {
        try
        {
            InvokeMeasured(call);
        }
        catch (Exception exception)
        {
            Report(exception);
        }

        AmbientState.Restore();
    }

    /// <summary>Makes a call that has begun to compute, and those that wait for its end.</summary>
    private void MakeComputing(ILoopCall call)
    {
        for (var next = call; next is not null; next = _threads.Computing.Next())
        {
            MakeMeasured(next);
        }
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

    // ---- Turns ----

    /// <summary>
    /// Asks for leave to touch what belongs to the loop. The loop is the caller's until <see cref="Leave"/>, which has to follow unless it is refused.
    /// </summary>
    internal LoopEntry Enter()
    {
        if (LoopThread.Current is not { } thread || thread.Loop != this)
        {
            return LoopEntry.Refused;
        }

        if (!thread.InCall)
        {
            return LoopEntry.Held;
        }

        if (!_turns.TryReturn(thread.Turn))
        {
            return LoopEntry.Refused;
        }

        thread.InCall = false;
        return LoopEntry.Entered;
    }

    internal void Leave(LoopEntry entry)
    {
        // A thread that has lost the loop meanwhile, in a call within, has nothing to go on with.
        if (entry == LoopEntry.Entered && LoopThread.Current is { } thread && thread.Loop == this)
        {
            thread.InCall = true;
            _turns.GoOn(thread.Turn);
        }
    }

    /// <summary>Goes into a call, in which the loop may be lost. By the thread whose turn it is.</summary>
    private void BeginCall(LoopThread thread)
    {
        thread.InCall = true;
        thread.Turn = _turns.BeginCall(thread.Turn);
        Monitor.Touch();
    }

    /// <summary>Comes back from a call.</summary>
    /// <returns>False when the loop is another thread's.</returns>
    private bool TryReturn(LoopThread thread)
    {
        thread.InCall = false;
        if (_turns.TryReturn(thread.Turn))
        {
            return true;
        }

        thread.Loop = null;
        return false;
    }

    /// <summary>
    /// Goes into a call for somebody whose code does not fit an <see cref="ILoopCall"/>, if the group is adaptive. By the thread whose turn it is, which has to
    /// call <see cref="TryReturnFromCall"/>.
    /// </summary>
    /// <returns>False when the code keeps the turn.</returns>
    internal bool TryBeginCall()
    {
        if (ThreadThatMayCall is not { } thread)
        {
            LoopThread.NoteKeptCall(1);
            return false;
        }

        BeginCall(thread);
        return true;
    }

    /// <summary>The calling thread, if it has the turn, is in no call and under no <see cref="LoopHold"/>, and may lose the loop in one.</summary>
    private LoopThread? ThreadThatMayCall =>
        _scheduling == LoopScheduling.Adaptive && LoopThread.Current is { InCall: false, Holds: 0 } thread && thread.Loop == this && !_ending ? thread : null;

    /// <summary>Whether the calling thread is under a <see cref="LoopHold"/> on this loop, and the loop is one that could be lost otherwise. On the loop.</summary>
    internal bool IsHeld => IsAdaptive && !_ending && LoopThread.Current is { Holds: > 0 } thread && thread.Loop == this;

    /// <summary>Comes back from the call before which <see cref="TryBeginCall()"/> was asked.</summary>
    /// <param name="begun">What it has answered.</param>
    /// <returns>False when the loop is another thread's: the caller must not touch what belongs to it any more.</returns>
    internal bool TryReturnFromCall(bool begun)
    {
        if (begun)
        {
            return TryReturn(LoopThread.Current!);
        }

        LoopThread.NoteKeptCall(-1);
        return true;
    }

    /// <summary>The user code that keeps the loop at the moment, by a number that no other call has; 0 when there is none. From any thread.</summary>
    internal long KeptCall => Volatile.Read(ref _thread)?.KeptCall ?? 0;

    /// <summary>Gives the loop to another thread before a call that is expected to take long, which would only hold it up.</summary>
    /// <returns>False when the caller is not the thread whose turn it is, or has to keep it.</returns>
    private bool TryPassOn()
    {
        if (ThreadThatMayCall is not { } thread || _threads.Take() is not { } next)
        {
            return false;
        }

        _threads.NoteLate(thread);
        thread.Loop = null;
        Assign(next, _turns.PassOn(thread.Turn));
        return true;
    }

    /// <summary>Has another thread go on with the loop, whose turn it is now.</summary>
    private void Assign(LoopThread thread, long turn)
    {
        _thread = thread;
        Meter.TakenOver();
        thread.Assign(this, turn);
        _threads.NoteTakeOver();
    }

    bool IMonitored.IsBusy => TurnTaking.IsInCall(_turns.Observe()) || _threads.IsShort;

    Sight IMonitored.Look()
    {
        _threads.Retry();
        var sight = _turns.Look(ref _seen);

        // First the thread, which may be hard to get, then the turn, so that the loop is nobody's at no time.
        if (sight == Sight.Overdue && _threads.Take() is { } thread)
        {
            if (_threads.TryTakeOver(_thread!, ref _turns, _seen, out var turn))
            {
                Assign(thread, turn);
            }
            else
            {
                _threads.Return(thread);
            }
        }

        return sight;
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

    /// <summary>Gives the loop its first thread, and returns when that is bound to its processor.</summary>
    /// <exception cref="ArgumentException">There is no such processor.</exception>
    internal void Start()
    {
        _thread = _threads.TakeFirst();
        _thread.Assign(this, 0);
        _started.Task.GetAwaiter().GetResult();
    }

    /// <summary>Ends the loop: its descriptors are closed and the calls posted before are made.</summary>
    internal async Task StopAsync()
    {
        if (_thread is null)
        {
            // Never started: nothing runs on it that could end it.
            _ = _work.TryClose();
            _poller.Dispose();
            return;
        }

        _ = TryPostInternal(static state => ((EventLoop)state!)._stopping = true, this);
        await _ended.Task.ConfigureAwait(false);
    }

    /// <summary>Runs the loop on the calling thread, whose turn it is, until it ends or another thread has taken it over.</summary>
    internal void Run(LoopThread thread)
    {
        try
        {
            Bind(thread);
            if (!TryGoOnUninterrupted(thread))
            {
                return;
            }
        }
        catch (Exception exception) when (thread.Loop == this)
        {
            // The poller itself failed. The loop cannot go on, but its connections are told, and nobody waits for ever.
            HasFailed = true;
            _ending = true;
            _group.OnLoopFailed(this, exception);
        }
        catch (Exception exception)
        {
            Report(exception);
            return;
        }

        try
        {
            End(thread);
        }
        catch (Exception exception)
        {
            // A want of memory. The loop has ended nevertheless, and its thread is to end in order.
            Report(exception);
        }
    }

    private bool TryGoOnUninterrupted(LoopThread thread)
    {
        while (true)
        {
            try
            {
                return TryGoOn(thread);
            }
            catch (ThreadInterruptedException) when (thread.Loop == this)
            {
                // User code has called Thread.Interrupt for this thread, which ended its next wait for a lock. Where the pass is stands in the loop, and it goes on there.
            }
        }
    }

    private void Bind(LoopThread thread)
    {
        try
        {
            if (_processor is { } processor)
            {
                thread.BindTo(processor);
            }

            _started.TrySetResult();
        }
        catch (Exception exception) when (!_started.Task.IsCompleted)
        {
            // Its creator is told, and ends all loops.
            _stopping = true;
            _started.SetException(exception);
        }
        catch (Exception exception)
        {
            // The processor has gone meanwhile. The loop goes on elsewhere.
            Report(exception);
        }
    }

    /// <summary>Passes, one after the other: descriptors, posted calls, timers, wait. The first one begins where the thread before this one went into its call.</summary>
    /// <returns>False when another thread has taken the loop over; true when it is to end.</returns>
    private bool TryGoOn(LoopThread thread)
    {
        try
        {
            while (TryDispatchEvents(thread) && TryRunWork(thread) && TryRunTimers(thread))
            {
                thread.Calls.Finish(this);
                if (_passBegan != 0)
                {
                    Meter.Busy(Stopwatch.GetElapsedTime(_passBegan));
                }

                if (_stopping)
                {
                    return true;
                }

                Wait();
                _work.BeginPass();
                _passBegan = Meter.IsTimed ? Stopwatch.GetTimestamp() : 0;
            }

            return false;
        }
        finally
        {
            // Also by a thread that has lost the loop in a call.
            thread.Calls.Finish(this);
        }
    }

    private void Wait()
    {
        (_eventCount, _nextEvent) = (0, 0);
        HasMadeCalls = false;
        if (_pollingDeferred > TimeSpan.Zero)
        {
            var timer = _timers.MillisecondsToNext();
            var limit = timer < 0 || timer > _pollingDeferred.TotalMilliseconds ? _pollingDeferred : TimeSpan.FromMilliseconds(timer);
            _pollingDeferred = default;
            if (_work.TryPark(limit))
            {
                return;
            }
        }

        if (!_work.TryBlock())
        {
            _eventCount = _poller.Wait(0);
            return;
        }

        // The events are kept before anything else may fail: each is reported once.
        _eventCount = _poller.Wait(_timers.MillisecondsToNext());

        // Before anything runs, so that what the events post costs no wake-up.
        _work.SetAwake();
    }

    private bool TryDispatchEvents(LoopThread thread)
    {
        if (_eventCount - _nextEvent > 1)
        {
            thread.Calls.Begin();
        }

        while (_nextEvent < _eventCount)
        {
            var (token, events) = _poller.GetEvent(_nextEvent++);
            Raise(token, events);
            thread.Restore();
            if (thread.Loop != this)
            {
                return false;
            }

            if (_nextEvent < _eventCount)
            {
                thread.Calls.FinishIfDue(this);
            }
        }

        thread.Calls.Finish(this);
        return true;
    }

    private bool TryRunWork(LoopThread thread)
    {
        while (_work.TryTake(out var item))
        {
            if (!TryRun(thread, item.Callback, item.State, item.MayBlock))
            {
                return false;
            }

            thread.Calls.FinishIfDue(this);
        }

        return true;
    }

    private bool TryRunTimers(LoopThread thread)
    {
        if (_timers.IsEmpty)
        {
            return true;
        }

        var now = Stopwatch.GetTimestamp();
        while (_timers.TakeDue(now) is { } timer)
        {
            if (!TryRun(thread, static timer => ((LoopTimer)timer!).Fire(), timer, timer.MayBlock))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Makes a posted call or a timer's.</summary>
    /// <returns>False when another thread has taken the loop over.</returns>
    private bool TryRun(LoopThread thread, Action<object?> callback, object? state, bool mayBlock)
    {
        if (mayBlock)
        {
            thread.Calls.Finish(this);
        }

        mayBlock &= _scheduling == LoopScheduling.Adaptive && !_ending;
        if (mayBlock && _threads.IsExhausted)
        {
            ThreadPool.UnsafeQueueUserWorkItem(
                static state =>
                {
                    var (loop, callback, argument) = state;
                    loop.Run(callback, argument);
                },
                (this, callback, state),
                preferLocal: false);
            return true;
        }

        if (mayBlock)
        {
            BeginCall(thread);
            Run(callback, state);
            thread.Restore();
            return TryReturn(thread);
        }

        thread.NoteKept(1);
        Run(callback, state);
        thread.NoteKept(-1);
        thread.Restore();
        return thread.Loop == this;
    }

    private void Run(Action<object?> callback, object? state)
    {
        try
        {
            callback(state);
        }
        catch (Exception exception)
        {
            Report(exception);
        }
    }

    private void Deliver(IPollTarget target, ReadyEvents events)
    {
        try
        {
            target.OnReady(events);
        }
        catch (Exception exception)
        {
            Report(exception);
            target.OnFault(exception);
        }
    }

    private void Stop(IPollTarget target)
    {
        try
        {
            target.OnLoopStopping();
        }
        catch (Exception exception)
        {
            Report(exception);
        }
    }

    /// <summary>Hands on what user code threw that nobody else can be told of.</summary>
    internal void Report(Exception exception) => _group.OnUnhandledException(this, exception);

    private void End(LoopThread thread)
    {
        _ending = true;
        foreach (var call in _threads.Computing.Withdraw())
        {
            // Timers are dropped, and so nobody would ask for them any more.
            ThreadPool.UnsafeQueueUserWorkItem(MakeMeasured, call, preferLocal: false);
        }

        try
        {
            _work.BeginEnd();

            // Closing one target may post work, and work (a connection that is being handed over) may bring another target. The queue is closed last,
            // so that until then others' calls still run here, and not beside this.
            do
            {
                foreach (var target in _registrations.Snapshot())
                {
                    Stop(target);
                    thread.Restore();
                }

                _work.BeginPass();
                _ = TryRunWork(thread);
                thread.Calls.Finish(this);
            }
            while (_registrations.Count > 0 || !_work.TryClose());
        }
        finally
        {
            _poller.Dispose();
            _ended.SetResult();
        }
    }
}

/// <summary>What <see cref="EventLoop.Enter"/> says.</summary>
internal enum LoopEntry : byte
{
    /// <summary>The caller is not on the loop, or not any more.</summary>
    Refused,

    /// <summary>It has the turn, and keeps it.</summary>
    Held,

    /// <summary>It has the turn, having come back from a call, with which it goes on at <see cref="EventLoop.Leave"/>.</summary>
    Entered,
}
