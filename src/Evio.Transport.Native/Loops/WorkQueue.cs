namespace Evio.Transport.Native.Loops;

/// <summary>A call to be made on a loop.</summary>
/// <param name="Callback">The call.</param>
/// <param name="State">Its argument.</param>
/// <param name="MayBlock">Whether it is the user's, who may lose the loop in it.</param>
internal readonly record struct WorkItem(Action<object?> Callback, object? State, bool MayBlock = false);

/// <summary>
/// What other threads want done on a loop, and whether that loop has to be woken for it.
/// </summary>
/// <remarks>
/// Two lists take turns: producers append to one under the lock, the loop runs the other without it. The same lock guards
/// <see cref="_awake"/>, so the questions "is there work?" and "does the loop block?" have one answer at any moment and no wake-up can
/// get lost between them: a producer that finds the loop awake knows that it will look again before it blocks, and one that finds it blocked is
/// the only one to write the wake-up for this pass.
/// <code>
///              TryEnqueue            TryBlock, empty   TryBlock, not empty   SetAwake   Park, empty
///  awake       append                blocked           awake                 awake      parked, until the time is up
///  blocked     append, wake, awake   -                 -                     awake      -
///  parked      append, awake         -                 -                     -          -
///  closed      refused               -                 -                     closed     -
/// </code>
/// A loop that is parked waits here, for items alone, and costs its wakers no system call of the poller's.
/// </remarks>
internal sealed class WorkQueue
{
    // A monitor and no Lock, because a parked loop waits on it.
    private readonly object _lock = new();
    private List<WorkItem> _incoming = [];
    private List<WorkItem> _running = [];
    private bool _awake = true;
    private bool _parked;
    private bool _ending;
    private bool _closed;

    /// <summary>Adds an item, from any thread.</summary>
    /// <param name="item">What to do.</param>
    /// <param name="mustWake">Whether the caller now has to wake the loop: true for one of all callers per blocked wait.</param>
    /// <param name="isOwn">Whether the reactor itself asks for it; such items are taken until <see cref="TryClose"/>.</param>
    /// <returns>False when the queue is closed, or ending and the item is not the reactor's own; it will not run.</returns>
    internal bool TryEnqueue(WorkItem item, out bool mustWake, bool isOwn = false)
    {
        lock (_lock)
        {
            mustWake = false;
            if (_closed || (_ending && !isOwn))
            {
                return false;
            }

            _incoming.Add(item);
            if (!_awake)
            {
                _awake = true;
                mustWake = true;
            }
            else if (_parked)
            {
                _parked = false;
                Monitor.Pulse(_lock);
            }

            return true;
        }
    }

    /// <summary>Asks, on the loop, for leave to block: refused while there is work.</summary>
    internal bool TryBlock()
    {
        lock (_lock)
        {
            _awake = _incoming.Count > 0;
            return !_awake;
        }
    }

    /// <summary>Says, after a blocking wait, that the loop will look into the queue before it blocks again.</summary>
    internal void SetAwake()
    {
        lock (_lock)
        {
            _awake = true;
        }
    }

    /// <summary>Waits, on the loop, until there is work or the time is up.</summary>
    internal void Park(TimeSpan limit)
    {
        lock (_lock)
        {
            if (_incoming.Count == 0)
            {
                _parked = true;
                _ = Monitor.Wait(_lock, limit);
                _parked = false;
            }
        }
    }

    /// <summary>
    /// Takes all that has come in; the caller clears the list. What its items enqueue in turn is for the next pass, so that the descriptors
    /// get their share however busy the queue is.
    /// </summary>
    internal List<WorkItem> Take()
    {
        lock (_lock)
        {
            (_incoming, _running) = (_running, _incoming);
            return _running;
        }
    }

    /// <summary>
    /// Refuses the application's items from now on. Those that it posts again and again would otherwise keep the queue from ever being empty.
    /// </summary>
    internal void BeginEnd()
    {
        lock (_lock)
        {
            _ending = true;
        }
    }

    /// <summary>Refuses everything from now on, if there is no work left.</summary>
    internal bool TryClose()
    {
        lock (_lock)
        {
            return _closed = _incoming.Count == 0;
        }
    }
}
