using System.Diagnostics;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native;

/// <content>The passes of the loop, and the loop's start and end.</content>
public sealed partial class EventLoop
{
    /// <summary>
    /// Runs passes: descriptors, posted calls, timers, wait. The first pass begins at the position where the previous owner went into its
    /// call.
    /// </summary>
    /// <returns>False when another thread owns the loop by now; true when the loop is to end.</returns>
    private bool TryGoOn(LoopThread thread)
    {
        try
        {
            while (TryDispatchEvents(thread) && TryRunWork(thread) && TryRunTimers(thread))
            {
                thread.Calls.Flush(this);
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
            // A thread that has lost the loop in a call flushes as well.
            thread.Calls.Flush(this);
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

        // An edge-triggered event is reported once, so the events are stored before anything else can fail.
        _eventCount = _poller.Wait(_timers.MillisecondsToNext());

        // Marked as awake first, so that calls posted by the handlers of these events cost no wake-up.
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
                thread.Calls.FlushIfDue(this);
            }
        }

        thread.Calls.Flush(this);
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

            thread.Calls.FlushIfDue(this);
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

    /// <summary>Makes a posted call or a timer's call.</summary>
    /// <returns>False when another thread owns the loop by now.</returns>
    private bool TryRun(LoopThread thread, Action<object?> callback, object? state, bool mayBlock)
    {
        if (mayBlock)
        {
            thread.Calls.Flush(this);
        }

        mayBlock &= _scheduling == LoopScheduling.Adaptive && !_ending;
        if (mayBlock && Ownership.IsSaturated)
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

        // The callback may have made a call by Invoke, or handed the loop off for a queued CPU-bound call.
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
            target.OnHandlerException(exception);
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

    /// <summary>Runs the loop on the calling thread, its owner, until the loop ends or is another thread's.</summary>
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
            // The poller itself has failed. The loop ends, and its connections are closed.
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
            // Out of memory, for example. The loop has ended nevertheless, and its thread ends in order.
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
                // User code has called Thread.Interrupt for this thread, which ended its next wait for a lock. The pass goes on from the
                // position that the loop has stored.
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
            // The creator of the group gets the exception, and ends all loops.
            _stopping = true;
            _started.SetException(exception);
        }
        catch (Exception exception)
        {
            // The processor has been taken offline since the start. The loop goes on unbound.
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

    /// <summary>Reports an exception of user code that no caller can receive.</summary>
    internal void Report(Exception exception) => _group.OnUnhandledException(this, exception);

    private void End(LoopThread thread)
    {
        _ending = true;
        _placement.MoveQueuedToPool();
        try
        {
            _work.BeginEnd();

            // Closing a target may post work, and posted work (a connection in transit, for example) may bring another target. The queue is
            // closed last, so that calls of other threads still run here until then, and not at the same time as this.
            do
            {
                foreach (var target in _registrations.Snapshot())
                {
                    Stop(target);
                    thread.Restore();
                }

                _work.BeginPass();
                _ = TryRunWork(thread);
                thread.Calls.Flush(this);
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
