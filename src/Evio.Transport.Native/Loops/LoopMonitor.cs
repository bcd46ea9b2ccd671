using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>Something that may get stuck in calls.</summary>
internal interface IMonitored
{
    /// <summary>Whether anything runs.</summary>
    bool IsBusy { get; }

    /// <summary>Acts if the same call runs as at the last sample. On the monitor's thread.</summary>
    MonitorSample Sample();
}

/// <summary>What a look has found.</summary>
internal enum MonitorSample : byte
{
    /// <summary>Nothing runs, and nothing has run since the last look.</summary>
    Idle,

    /// <summary>Calls are made, but none runs at the moment.</summary>
    Busy,

    /// <summary>A call runs that did not at the last look, or something waits for one: to be looked at again soon.</summary>
    InCall,

    /// <summary>The same call runs as at the last sample.</summary>
    Stalled,
}

/// <summary>Looks for calls that do not return, as long as any are made. While none are it sleeps.</summary>
/// <remarks>
/// A look costs some twenty microseconds, nearly all of it for waking up. A server whose handlers never block should not pay for a thousand of them a second: so whoever is
/// seen in a call is looked at again after a millisecond, and everybody else after four. Where calls have been overdue lately it is a millisecond always.
/// </remarks>
internal sealed class LoopMonitor
{
    // These two decide when a loop is given away: from one to five milliseconds after its call has begun.
    private static readonly TimeSpan RecheckInterval = TimeSpan.FromMilliseconds(1);
    private static readonly TimeSpan UsualInterval = TimeSpan.FromMilliseconds(4);

    /// <summary>For so long it looks after what others have left for later, before it looks at the loops again.</summary>
    private static readonly TimeSpan LongestLook = TimeSpan.FromMilliseconds(1);

    /// <summary>For how many looks one overdue call has it expect others.</summary>
    private const int SamplesAfterStall = 256;

    /// <summary>
    /// After how many looks at nothing it sleeps. Being woken costs the loop a system call, which a server with some hundred requests a second should not
    /// pay for each of them.
    /// </summary>
    private const int SamplesBeforeSleep = 4;

    private readonly Func<MonitorSample>[] _looks;
    private readonly IMonitored[] _monitored;
    private readonly Notifications _notifications;
    private readonly string _name;
    private readonly object _lock = new();

    private readonly Lock _watchLock = new();

    // Guarded by the lock, and read without it. It sleeps until it is first needed, and has no thread before that.
    private Thread? _thread;
    private bool _asleep = true;
    private bool _stopping;

    // What it looks after for others, guarded by its lock, and the list that it goes through while others add to this one.
    private List<IWatched> _watched = [];
    private List<IWatched> _looking = [];

    internal LoopMonitor(IEnumerable<IMonitored> monitored, Notifications notifications, string name)
    {
        _notifications = notifications;
        _monitored = [.. monitored];
        _looks = [.. _monitored.Select(static monitored => (Func<MonitorSample>)monitored.Sample), LookAfterWatched];
        _name = name;
    }

    /// <summary>Starts its thread, which is otherwise done when it is needed.</summary>
    /// <exception cref="OutOfMemoryException">The system starts no thread.</exception>
    internal void Start()
    {
        lock (_lock)
        {
            StartThread();
        }
    }

    /// <summary>Looks after something until that says that there is nothing more to look after. From any thread.</summary>
    internal void Watch(IWatched watched)
    {
        _ = LoopThread.Persist(static adding => adding.Monitor.TryAdd(adding.Watched), (Monitor: this, Watched: watched));

        // Either this sees that it is asleep, or it sees what there is to look after.
        Interlocked.MemoryBarrier();
        Touch();
    }

    /// <summary>To be called after a call has begun: <see cref="IMonitored.IsBusy"/> is true by a full fence. From any thread.</summary>
    internal void Touch()
    {
        if (Volatile.Read(ref _asleep))
        {
            // By a thread that is in a call already: nothing may come out of here (Thread.Interrupt).
            LoopThread.Persist(Wake);
        }
    }

    /// <summary>Ends it, and waits for its thread.</summary>
    internal void Stop()
    {
        Thread? thread;
        lock (_lock)
        {
            Volatile.Write(ref _stopping, true);
            Monitor.PulseAll(_lock);
            thread = _thread;
        }

        thread?.Join();
    }

    private bool TryAdd(IWatched watched)
    {
        lock (_watchLock)
        {
            _watched.Add(watched);
            return true;
        }
    }

    private void StartThread()
    {
        if (_thread is not null || _stopping)
        {
            return;
        }

        var thread = new Thread(() => LoopThread.Persist(Run)) { IsBackground = true, Name = _name };
        thread.UnsafeStart();
        _thread = thread;
    }

    private bool Wake()
    {
        try
        {
            lock (_lock)
            {
                StartThread();
                _asleep = false;
                Monitor.PulseAll(_lock);
            }

            return true;
        }
        catch (Exception exception) when (exception is OutOfMemoryException or ThreadStartException)
        {
            // The system starts no thread. Who comes next tries again.
            _notifications.ReportOnce(exception);
            return false;
        }
    }

    private bool Run()
    {
        Volatile.Write(ref _asleep, false);
        var idleSamples = 0;
        var expected = 0;
        var last = MonitorSample.Stalled;
        while (true)
        {
            Thread.Sleep(last >= MonitorSample.InCall || expected > 0 ? RecheckInterval : UsualInterval);
            if (Volatile.Read(ref _stopping))
            {
                return true;
            }

            var most = MonitorSample.Idle;
            foreach (var look in _looks)
            {
                var sample = LookAt(look);
                most = sample > most ? sample : most;
            }

            AmbientState.Restore();
            expected = most == MonitorSample.Stalled ? SamplesAfterStall : Math.Max(0, expected - 1);
            idleSamples = most == MonitorSample.Idle ? idleSamples + 1 : 0;

            // Seen in a call twice in a row without being stalled: it is another call each time, so these are short.
            last = last == MonitorSample.InCall && most == MonitorSample.InCall ? MonitorSample.Busy : most;
            if (idleSamples == SamplesBeforeSleep)
            {
                Sleep();
                (idleSamples, last) = (0, MonitorSample.Stalled);
            }
        }
    }

    private MonitorSample LookAt(Func<MonitorSample> look)
    {
        try
        {
            return look();
        }
        catch (Exception exception)
        {
            // A want of memory. The next look may be better, and the other loops depend on this thread.
            _notifications.ReportOnce(exception);
            return MonitorSample.Busy;
        }
    }

    private MonitorSample LookAfterWatched()
    {
        if (_watched.Count == 0)
        {
            return MonitorSample.Idle;
        }

        lock (_watchLock)
        {
            (_watched, _looking) = (_looking, _watched);
        }

        var began = Stopwatch.GetTimestamp();
        var (next, kept) = (0, 0);
        while (next < _looking.Count && (next % 16 != 0 || Stopwatch.GetElapsedTime(began) < LongestLook))
        {
            var watched = _looking[next++];
            if (!IsThrough(watched))
            {
                _looking[kept++] = watched;
            }
        }

        // Those that there was no time for come first the next time.
        var isLeft = next < _looking.Count;
        lock (_watchLock)
        {
            if (isLeft)
            {
                _watched.InsertRange(0, _looking[next..]);
            }

            _watched.AddRange(_looking[..kept]);
        }

        _looking.Clear();
        return isLeft ? MonitorSample.Stalled : kept > 0 ? MonitorSample.InCall : MonitorSample.Busy;
    }

    private bool IsThrough(IWatched watched)
    {
        try
        {
            return !watched.Look();
        }
        catch (Exception exception)
        {
            _notifications.ReportOnce(exception);
            return false;
        }
    }

    private void Sleep()
    {
        Volatile.Write(ref _asleep, true);

        // Either this sees the call that has just begun, or whoever began it sees that this is asleep.
        Interlocked.MemoryBarrier();
        if (_watched.Count > 0 || _monitored.Any(static monitored => monitored.IsBusy))
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
