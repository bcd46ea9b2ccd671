using System.Diagnostics;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Polling;

namespace Evio.Transport.Native;

/// <summary>
/// One thread, one poller, and all descriptors, timers and posted calls that belong to them. Loops are made by
/// <see cref="EventLoopGroup"/>.
/// </summary>
public sealed class EventLoop
{
    private readonly EventLoopGroup _group;
    private readonly Poller _poller;
    private readonly RegistrationTable _registrations = new();
    private readonly WorkQueue _work = new();
    private readonly TimerQueue _timers = new();
    private readonly Thread _thread;
    private readonly int? _processor;
    private readonly TaskCompletionSource _started = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _connectionCount;
    private TimeSpan _pollingDeferred;
    private bool _stopping;

    internal EventLoop(EventLoopGroup group, int index, EventLoopGroupOptions options, LoopMeter meter, Poller poller)
    {
        _group = group;
        Index = index;
        _poller = poller;
        Meter = meter;
        _processor = options.Affinity.Count > 0 ? options.Affinity[index % options.Affinity.Count] : null;
        _thread = new Thread(Run) { IsBackground = true, Name = $"{options.ThreadName} {index}" };
    }

    /// <summary>The loop's position in its group, from 0.</summary>
    public int Index { get; }

    /// <summary>Whether the caller runs on this loop.</summary>
    public bool IsCurrent => Environment.CurrentManagedThreadId == _thread.ManagedThreadId;

    /// <summary>The number of open connections that the loop owns, those on their way to it included. To be read from any thread.</summary>
    public int ConnectionCount => Volatile.Read(ref _connectionCount);

    /// <summary>Has the loop make a call, after those posted before. To be used from any thread, also from the loop's own.</summary>
    /// <param name="callback">The call. It must not block. What it throws goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.</param>
    /// <param name="state">Handed to <paramref name="callback"/>.</param>
    /// <returns>False when the loop has ended; the call will not be made.</returns>
    public bool TryPost(Action<object?> callback, object? state)
    {
        ArgumentNullException.ThrowIfNull(callback);
        return TryPost(callback, state, isOwn: false);
    }

    /// <summary>Has the loop make a call of the reactor's own, which it also takes while it ends: a close, a connection that is handed over.</summary>
    internal bool TryPostOwn(Action<object?> callback, object? state) => TryPost(callback, state, isOwn: true);

    private bool TryPost(Action<object?> callback, object? state, bool isOwn)
    {
        if (!_work.TryEnqueue(new WorkItem(callback, state), out var mustWake, isOwn))
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

    /// <summary>Has the loop make a call after a delay. To be used on the loop.</summary>
    /// <param name="delay">At least this long; the loop's time has the resolution of a millisecond.</param>
    /// <param name="callback">The call. It must not block. What it throws goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.</param>
    /// <param name="state">Handed to <paramref name="callback"/>.</param>
    /// <returns>The timer, which can be called off. Timers that are pending when the loop ends are dropped.</returns>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="delay"/> is negative.</exception>
    /// <exception cref="InvalidOperationException">The caller is not on the loop.</exception>
    public LoopTimer Schedule(TimeSpan delay, Action<object?> callback, object? state)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(delay, TimeSpan.Zero);
        ArgumentNullException.ThrowIfNull(callback);
        if (!IsCurrent)
        {
            throw new InvalidOperationException($"A timer is made on its loop; call {nameof(TryPost)} first.");
        }

        return _timers.Add(delay, callback, state);
    }

    /// <summary>
    /// Has the loop wait for posted calls, and not look at its descriptors, the next time that it would wait: for those who have not yet done what it
    /// found before, so that it does not interrupt them and finds more at once. To be used on the loop.
    /// </summary>
    /// <param name="limit">The longest wait. It ends with the first call that is posted and when a timer is due.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="limit"/> is negative.</exception>
    /// <exception cref="InvalidOperationException">The caller is not on the loop.</exception>
    public void DeferPolling(TimeSpan limit)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(limit, TimeSpan.Zero);
        if (!IsCurrent)
        {
            throw new InvalidOperationException("Polling is deferred on the loop.");
        }

        _pollingDeferred = limit;
    }

    /// <summary>Where the loop's doings are counted. From any thread.</summary>
    internal LoopMeter Meter { get; }

    internal void ConnectionAdded() => Interlocked.Increment(ref _connectionCount);

    internal void ConnectionRemoved() => Interlocked.Decrement(ref _connectionCount);

    /// <summary>Makes a target known, which is told when the loop ends, and gets the events of what is watched under its token. On the loop.</summary>
    internal ulong Register(IPollTarget target)
    {
        Debug.Assert(IsCurrent);
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

    /// <summary>Starts the thread, and returns when it is bound to its processor.</summary>
    /// <exception cref="ArgumentException">There is no such processor.</exception>
    internal void Start()
    {
        _thread.Start();
        _started.Task.GetAwaiter().GetResult();
    }

    /// <summary>Ends the loop: its descriptors are closed, the calls posted before are made, and its thread ends.</summary>
    internal async Task StopAsync()
    {
        if (!_thread.IsAlive && !_ended.Task.IsCompleted)
        {
            // Never started: nothing runs on it that could end it.
            _ = _work.TryClose();
            _poller.Dispose();
            return;
        }

        _ = TryPost(static state => ((EventLoop)state!)._stopping = true, this);
        await _ended.Task.ConfigureAwait(false);
        if (!IsCurrent)
        {
            _thread.Join();
        }
    }

    private void Run()
    {
        try
        {
            Bind();
            while (!_stopping)
            {
                RunOnce();
            }
        }
        catch (Exception exception)
        {
            // The poller itself failed. The loop cannot go on, but its connections are told, and nobody waits for ever.
            Report(exception);
        }
        finally
        {
            End();
        }
    }

    private void Bind()
    {
        try
        {
            if (_processor is { } processor)
            {
                ThreadAffinity.BindTo(processor);
            }

            _started.SetResult();
        }
        catch (Exception exception)
        {
            // Its creator is told, and ends all loops.
            _stopping = true;
            _started.SetException(exception);
        }
    }

    /// <summary>One pass, the life of every event: wait, descriptors, posted calls, timers.</summary>
    private void RunOnce()
    {
        var count = 0;
        if (_pollingDeferred > TimeSpan.Zero)
        {
            var timer = _timers.MillisecondsToNext();
            _work.Park(timer < 0 || timer > _pollingDeferred.TotalMilliseconds ? _pollingDeferred : TimeSpan.FromMilliseconds(timer));
            _pollingDeferred = default;
        }
        else if (_work.TryBlock())
        {
            count = _poller.Wait(_timers.MillisecondsToNext());

            // Before anything runs, so that what the events below post costs no wake-up.
            _work.SetAwake();
        }
        else
        {
            count = _poller.Wait(0);
        }

        var began = Meter.IsTimed ? Stopwatch.GetTimestamp() : 0;
        for (var i = 0; i < count; i++)
        {
            var (token, events) = _poller.GetEvent(i);
            Raise(token, events);
        }

        RunWork(_work.Take());

        if (!_timers.IsEmpty)
        {
            RunTimers();
        }

        if (began != 0)
        {
            Meter.Busy(Stopwatch.GetElapsedTime(began));
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

    private void RunWork(List<WorkItem> work)
    {
        foreach (var item in work)
        {
            try
            {
                item.Callback(item.State);
            }
            catch (Exception exception)
            {
                Report(exception);
            }
        }

        work.Clear();
    }

    private void RunTimers()
    {
        var now = Stopwatch.GetTimestamp();
        while (_timers.TakeDue(now) is { } timer)
        {
            try
            {
                timer.Fire();
            }
            catch (Exception exception)
            {
                Report(exception);
            }
        }
    }

    private void End()
    {
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
                }

                RunWork(_work.Take());
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
