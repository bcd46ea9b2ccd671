using System.Diagnostics;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native;

/// <content>The life of an event: passes of the loop, one after the other, then its beginning and its end.</content>
public sealed partial class EventLoop
{
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
        if (mayBlock && Ownership.IsExhausted)
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
            Ownership.BeginCall(thread);
            Run(callback, state);
            thread.Restore();
            return Ownership.TryReturn(thread);
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

    /// <summary>Gives the loop its first thread, and returns when that is bound to its processor.</summary>
    /// <exception cref="ArgumentException">There is no such processor.</exception>
    internal void Start()
    {
        Ownership.Begin();
        _started.Task.GetAwaiter().GetResult();
    }

    /// <summary>Ends the loop: its descriptors are closed and the calls posted before are made.</summary>
    internal async Task StopAsync()
    {
        if (!Ownership.HasBegun)
        {
            // Never started: nothing runs on it that could end it.
            _ = _work.TryClose();
            _poller.Dispose();
            return;
        }

        _ = TryPostInternal(static state => ((EventLoop)state!)._stopping = true, this);
        await _ended.Task.ConfigureAwait(false);
    }

    /// <summary>Runs the loop on the calling thread, the owner, until it ends or another thread has taken it over.</summary>
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
        _placement.RunWaiting();
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
