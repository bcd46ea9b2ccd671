using System.Diagnostics;
using System.Runtime.InteropServices;

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
/// <para>
/// Two lists take turns: producers append to one under the lock, the loop runs the other without it. The same lock guards
/// <see cref="_awake"/>, so the questions "is there work?" and "does the loop block?" have one answer at any moment and no wake-up can
/// get lost between them: a producer that finds the loop awake knows that it will look again before it blocks, and one that finds it blocked is
/// the only one to write the wake-up for this pass.
/// </para>
/// <code>
///              TryEnqueue            TryBlock, empty   TryBlock, not empty   SetAwake   Park, empty
///  awake       append                blocked           awake                 awake      parked, until the time is up
///  blocked     append, wake, awake   -                 -                     awake      -
///  parked      append, awake         -                 -                     -          -
///  closed      refused               -                 -                     closed     -
/// </code>
/// <para>
/// A loop that is parked waits here, for items alone, and costs its wakers no system call of the poller's.
/// </para>
/// <para>
/// A pass of the loop runs at most <see cref="MaxItemsPerPass"/> items, however many there are. What is left of the list counts as work, and comes before what
/// has come in since. Where the pass stands is kept here and not on a stack: the thread that takes the loop over goes on there.
/// </para>
/// </remarks>
internal sealed class WorkQueue
{
    /// <summary>
    /// How many items run before the loop looks at its descriptors and timers. A look that finds nothing costs about as much as one item, so beside
    /// this many it does not count.
    /// </summary>
    internal const int MaxItemsPerPass = 64;

    /// <summary>The capacity that an empty list keeps. A burst's larger one is given back.</summary>
    internal const int MaxKeptCapacity = 1024;

    // A monitor and no Lock, because a parked loop waits on it.
    private readonly object _lock = new();
    private List<WorkItem> _incoming = [];
    private bool _awake = true;
    private bool _parked;
    private bool _ending;
    private bool _closed;

    // The loop's: what it runs, the next of it, and where the pass's share ends; negative until the pass comes to its share.
    private List<WorkItem> _running = [];
    private int _next;
    private int _shareEnd = -1;

    /// <summary>What the lists have room for.</summary>
    internal int Capacity
    {
        get
        {
            lock (_lock)
            {
                return _incoming.Capacity + _running.Capacity;
            }
        }
    }

    private bool IsAnyLeft => _next < _running.Count;

    /// <summary>Adds an item, from any thread.</summary>
    /// <param name="item">What to do.</param>
    /// <param name="mustWake">Whether the caller now has to wake the loop: true for one of all callers per blocked wait.</param>
    /// <param name="acceptWhileEnding">Whether the item is taken until <see cref="TryClose"/>.</param>
    /// <returns>False when the queue is closed, or ending and does not take the item any more; it will not run.</returns>
    internal bool TryEnqueue(WorkItem item, out bool mustWake, bool acceptWhileEnding = false)
    {
        lock (_lock)
        {
            mustWake = false;
            if (_closed || (_ending && !acceptWhileEnding))
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
            _awake = IsAnyLeft || _incoming.Count > 0;
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
    /// <returns>False when there was work already, and it did not wait.</returns>
    internal bool TryPark(TimeSpan limit)
    {
        lock (_lock)
        {
            if (IsAnyLeft || _incoming.Count > 0)
            {
                return false;
            }

            _parked = true;
            _ = Monitor.Wait(_lock, limit);
            _parked = false;
            return true;
        }
    }

    /// <summary>Lets the loop take its next share.</summary>
    internal void BeginPass() => _shareEnd = -1;

    /// <summary>
    /// Takes the next item of the pass's share. What the items enqueue in turn is for a later pass, so that the descriptors get their share however busy the queue
    /// is.
    /// </summary>
    internal bool TryTake(out WorkItem item)
    {
        if (_shareEnd < 0)
        {
            BeginShare();
        }

        if (_next < _shareEnd)
        {
            item = _running[_next++];
            return true;
        }

        EndShare();
        item = default;
        return false;
    }

    private void BeginShare()
    {
        if (!IsAnyLeft)
        {
            Debug.Assert(_running.Count == 0);
            lock (_lock)
            {
                (_incoming, _running) = (_running, _incoming);
            }
        }

        _shareEnd = Math.Min(_running.Count, _next + MaxItemsPerPass);
    }

    /// <summary>While the loop waits, or looks after its descriptors, the list holds nothing that has run.</summary>
    private void EndShare()
    {
        if (IsAnyLeft)
        {
            CollectionsMarshal.AsSpan(_running)[Math.Max(0, _next - MaxItemsPerPass).._next].Clear();
            return;
        }

        _running.Clear();
        _next = _shareEnd = 0;
        if (_running.Capacity > MaxKeptCapacity)
        {
            _running.Capacity = 0;
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
            return _closed = !IsAnyLeft && _incoming.Count == 0;
        }
    }
}
