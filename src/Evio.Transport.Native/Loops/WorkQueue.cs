using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Loops;

/// <summary>A call to be made on a loop.</summary>
/// <param name="Callback">The call.</param>
/// <param name="State">Its argument.</param>
/// <param name="MayBlock">Whether it is user code, in which the loop may be lost.</param>
internal readonly record struct WorkItem(Action<object?> Callback, object? State, bool MayBlock = false);

/// <summary>
/// The calls that are posted to a loop, and whether the loop has to be woken for them.
/// </summary>
/// <remarks>
/// <para>
/// There are two lists, which the loop swaps: producers append to one under the lock, and the loop runs the other without it. The same lock
/// guards <see cref="_awake"/>, so no wake-up can get lost between the check for work and the wait. A producer that finds the loop awake
/// knows that the loop checks the queue again before it blocks. A producer that finds it blocked is the only one to write the wake-up for
/// this pass.
/// </para>
/// <code>
///              TryEnqueue            TryBlock, empty   TryBlock, not empty   SetAwake   Park, empty
///  awake       append                blocked           awake                 awake      parked, until the time is up
///  blocked     append, wake, awake   -                 -                     awake      -
///  parked      append, awake         -                 -                     -          -
///  closed      refused               -                 -                     closed     -
/// </code>
/// <para>
/// A parked loop waits on this queue, for items alone. To wake it costs no system call of the poller.
/// </para>
/// <para>
/// A pass of the loop runs at most <see cref="MaxItemsPerPass"/> items, however many there are. The rest of the list counts as work, and
/// comes before items that were added since. The position within the pass is kept in this object, not on a stack: a thread that becomes the
/// loop's owner goes on from there.
/// </para>
/// </remarks>
internal sealed class WorkQueue
{
    /// <summary>
    /// The number of items that run before the loop checks its descriptors and timers. A check that finds nothing costs about as much as
    /// one item, so it does not count beside this many.
    /// </summary>
    internal const int MaxItemsPerPass = 64;

    /// <summary>The capacity that an empty list keeps. A burst's larger one is given back.</summary>
    internal const int MaxKeptCapacity = 1024;

    // An object for Monitor and not a Lock, because a parked loop waits on it.
    private readonly object _lock = new();
    private List<WorkItem> _incoming = [];
    private bool _awake = true;
    private bool _parked;
    private bool _ending;
    private bool _closed;

    // Used on the loop only: the list that runs, the next item of it, and the end of the pass's share, which is negative until the pass
    // comes to its share.
    private List<WorkItem> _running = [];
    private int _next;
    private int _shareEnd = -1;

    /// <summary>The capacity of both lists together.</summary>
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
    /// <param name="item">The call.</param>
    /// <param name="mustWake">Whether the caller has to wake the loop. True for only one caller per blocked wait.</param>
    /// <param name="acceptWhileEnding">Whether the queue also accepts the item while it is ending, until <see cref="TryClose"/>.</param>
    /// <returns>False when the queue is closed, or is ending and does not accept the item. The item will not run.</returns>
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

    /// <summary>Marks the loop as blocked, unless there is work. On the loop.</summary>
    /// <returns>False when there is work: the loop must not block.</returns>
    internal bool TryBlock()
    {
        lock (_lock)
        {
            _awake = IsAnyLeft || _incoming.Count > 0;
            return !_awake;
        }
    }

    /// <summary>Marks the loop as awake after a blocking wait: it will check the queue before it blocks again.</summary>
    internal void SetAwake()
    {
        lock (_lock)
        {
            _awake = true;
        }
    }

    /// <summary>Waits until there is work or the time is up. On the loop.</summary>
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
    /// Takes the next item of the pass's share. Items that are added by these items run in a later pass, so that the descriptors get their
    /// share however busy the queue is.
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

    /// <summary>Removes the items that have run. So the list holds none of them while the loop waits or handles its descriptors.</summary>
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
    /// Refuses the application's items from now on. An application that posts again and again would otherwise keep the queue from ever
    /// being empty.
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
