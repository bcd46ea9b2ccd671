namespace Evio.Transport.Native.Loops;

/// <summary>Something that may get stuck in calls.</summary>
internal interface IMonitored
{
    /// <summary>Whether anything runs.</summary>
    bool IsBusy { get; }

    /// <summary>Acts if the same call runs as at the last look. On the monitor's thread.</summary>
    Sight Look();
}

/// <summary>What a look has found.</summary>
internal enum Sight : byte
{
    /// <summary>Nothing runs, and nothing has run since the last look.</summary>
    Idle,

    /// <summary>Calls are made, but none runs at the moment.</summary>
    Busy,

    /// <summary>A call runs that did not at the last look, or something waits for one: to be looked at again soon.</summary>
    InCall,

    /// <summary>The same call runs as at the last look.</summary>
    Overdue,
}

/// <summary>Looks for calls that do not return, as long as any are made. While none are it sleeps.</summary>
/// <remarks>
/// A look costs some twenty microseconds, nearly all of it for waking up. A server that is never late should not pay for a thousand of them a second: so whoever is
/// seen in a call is looked at again after a millisecond, and everybody else after four. Where calls have been overdue lately it is a millisecond always.
/// </remarks>
internal sealed class LoopMonitor
{
    private static readonly TimeSpan Soon = TimeSpan.FromMilliseconds(1);
    private static readonly TimeSpan Later = TimeSpan.FromMilliseconds(4);

    /// <summary>For how many looks one overdue call has it expect others.</summary>
    private const int LooksAfterOverdue = 256;

    /// <summary>
    /// After how many looks at nothing it sleeps. Being woken costs the loop a system call, which a server with some hundred requests a second should not
    /// pay for each of them.
    /// </summary>
    private const int LooksBeforeSleep = 4;

    private readonly IMonitored[] _monitored;
    private readonly object _lock = new();
    private readonly Thread _thread;
    private bool _asleep;
    private bool _stopping;

    internal LoopMonitor(IEnumerable<IMonitored> monitored, string name)
    {
        _monitored = [.. monitored];
        _thread = new Thread(Run) { IsBackground = true, Name = name };
    }

    internal void Start() => _thread.UnsafeStart();

    /// <summary>To be called after a call has begun: <see cref="IMonitored.IsBusy"/> is true by a full fence. From any thread.</summary>
    internal void Touch()
    {
        if (Volatile.Read(ref _asleep))
        {
            Wake();
        }
    }

    /// <summary>Ends it, and waits for its thread.</summary>
    internal void Stop()
    {
        lock (_lock)
        {
            Volatile.Write(ref _stopping, true);
            Monitor.PulseAll(_lock);
        }

        if (_thread.ThreadState.HasFlag(ThreadState.Unstarted))
        {
            return;
        }

        _thread.Join();
    }

    private void Wake()
    {
        lock (_lock)
        {
            _asleep = false;
            Monitor.PulseAll(_lock);
        }
    }

    private void Run()
    {
        var idleLooks = 0;
        var expected = 0;
        var last = Sight.Overdue;
        while (true)
        {
            Thread.Sleep(last >= Sight.InCall || expected > 0 ? Soon : Later);
            if (Volatile.Read(ref _stopping))
            {
                return;
            }

            var most = Sight.Idle;
            foreach (var monitored in _monitored)
            {
                var sight = monitored.Look();
                most = sight > most ? sight : most;
            }

            AmbientState.Restore();
            expected = most == Sight.Overdue ? LooksAfterOverdue : Math.Max(0, expected - 1);
            idleLooks = most == Sight.Idle ? idleLooks + 1 : 0;

            // Seen in a call twice in a row without being late: it is another call each time, so these are short.
            last = last == Sight.InCall && most == Sight.InCall ? Sight.Busy : most;
            if (idleLooks == LooksBeforeSleep)
            {
                Sleep();
                (idleLooks, last) = (0, Sight.Overdue);
            }
        }
    }

    private void Sleep()
    {
        Volatile.Write(ref _asleep, true);

        // Either this sees the call that has just begun, or whoever began it sees that this is asleep.
        Interlocked.MemoryBarrier();
        if (_monitored.Any(static monitored => monitored.IsBusy))
        {
            Volatile.Write(ref _asleep, false);
            return;
        }

        lock (_lock)
        {
            while (_asleep && !_stopping)
            {
                Monitor.Wait(_lock);
            }
        }
    }
}
