using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>What the monitor samples: a loop, or the workers that make its calls.</summary>
internal interface IMonitored
{
    /// <summary>Whether a call runs. From any thread.</summary>
    bool IsBusy { get; }

    /// <summary>Takes a sample, and acts on a call that was running at the last one, too. On the monitor's thread.</summary>
    MonitorSample Sample();
}

/// <summary>The result of a sample.</summary>
internal enum MonitorSample : byte
{
    /// <summary>No call runs, and none has run since the last sample.</summary>
    Idle,

    /// <summary>Calls have run since the last sample, but none runs at the moment.</summary>
    Busy,

    /// <summary>A call runs that did not run at the last sample, or work waits for a call to end. The next sample comes soon.</summary>
    InCall,

    /// <summary>The same call runs as at the last sample.</summary>
    Stalled,
}

/// <summary>Finds calls that do not return, and deferred work that is not done. Sleeps while there are none.</summary>
/// <remarks>
/// A tick costs about twenty microseconds, nearly all of it for the wake-up, which a server whose handlers never block should not pay a
/// thousand times per second. So the next tick comes after one millisecond when a call was seen, and after four otherwise. For a while
/// after a stalled call every tick comes after one millisecond.
/// </remarks>
internal sealed class LoopMonitor
{
    // Together they decide when a loop is retaken: one to five milliseconds after its call has begun.
    private static readonly TimeSpan RecheckInterval = TimeSpan.FromMilliseconds(1);
    private static readonly TimeSpan UsualInterval = TimeSpan.FromMilliseconds(4);

    /// <summary>How long a tick checks deferred work before the loops are sampled again.</summary>
    private static readonly TimeSpan MaxCheckTime = TimeSpan.FromMilliseconds(1);

    /// <summary>The number of ticks for which a stalled call lets the monitor expect others.</summary>
    private const int SamplesAfterStall = 256;

    /// <summary>
    /// The number of idle ticks before the monitor sleeps. To wake it costs the loop a system call, which a server with some hundred
    /// requests per second should not pay for each of them.
    /// </summary>
    private const int SamplesBeforeSleep = 4;

    private readonly Func<MonitorSample>[] _samplers;
    private readonly IMonitored[] _monitored;
    private readonly Notifications _notifications;
    private readonly string _name;
    private readonly object _lock = new();

    private readonly Lock _watchLock = new();

    // Written under the lock, read without it. The monitor sleeps until it is first needed, and has no thread before that.
    private Thread? _thread;
    private bool _asleep = true;
    private bool _stopping;

    // Deferred work, guarded by its lock; and the list that a tick goes through while other threads add to the first one.
    private List<IWatched> _watched = [];
    private List<IWatched> _checking = [];

    internal LoopMonitor(IEnumerable<IMonitored> monitored, Notifications notifications, string name)
    {
        _notifications = notifications;
        _monitored = [.. monitored];
        _samplers = [.. _monitored.Select(static monitored => (Func<MonitorSample>)monitored.Sample), CheckWatched];
        _name = name;
    }

    /// <summary>Starts the monitor's thread now rather than when it is first needed.</summary>
    /// <exception cref="OutOfMemoryException">The system starts no thread.</exception>
    internal void Start()
    {
        lock (_lock)
        {
            StartThread();
        }
    }

    /// <summary>Checks deferred work at each tick until it is done. From any thread.</summary>
    internal void Watch(IWatched watched)
    {
        _ = LoopThread.RetryOnInterrupt(static adding => adding.Monitor.TryAdd(adding.Watched), (Monitor: this, Watched: watched));

        // Either this thread sees that the monitor sleeps, or the monitor sees the work before it sleeps.
        Interlocked.MemoryBarrier();
        Touch();
    }

    /// <summary>
    /// Wakes the monitor if it sleeps. After a call has begun, and <see cref="IMonitored.IsBusy"/> was made true with a full fence. From
    /// any thread.
    /// </summary>
    internal void Touch()
    {
        if (Volatile.Read(ref _asleep))
        {
            // The thread is in a call already, so an interruption (Thread.Interrupt) must not throw here.
            LoopThread.RetryOnInterrupt(Wake);
        }
    }

    /// <summary>Ends the monitor, and waits for its thread.</summary>
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

        var thread = new Thread(() => LoopThread.RetryOnInterrupt(Run)) { IsBackground = true, Name = _name };
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
            // The system starts no thread. The next call tries again.
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
            foreach (var sampler in _samplers)
            {
                var sample = TakeSample(sampler);
                most = sample > most ? sample : most;
            }

            AmbientState.Restore();
            expected = most == MonitorSample.Stalled ? SamplesAfterStall : Math.Max(0, expected - 1);
            idleSamples = most == MonitorSample.Idle ? idleSamples + 1 : 0;

            // In a call at two samples in a row and not stalled means two different calls: calls are short here.
            last = last == MonitorSample.InCall && most == MonitorSample.InCall ? MonitorSample.Busy : most;
            if (idleSamples == SamplesBeforeSleep)
            {
                Sleep();
                (idleSamples, last) = (0, MonitorSample.Stalled);
            }
        }
    }

    private MonitorSample TakeSample(Func<MonitorSample> sampler)
    {
        try
        {
            return sampler();
        }
        catch (Exception exception)
        {
            // Out of memory, for example. The next tick may succeed, and all loops depend on this thread.
            _notifications.ReportOnce(exception);
            return MonitorSample.Busy;
        }
    }

    private MonitorSample CheckWatched()
    {
        if (_watched.Count == 0)
        {
            return MonitorSample.Idle;
        }

        lock (_watchLock)
        {
            (_watched, _checking) = (_checking, _watched);
        }

        var began = Stopwatch.GetTimestamp();
        var (next, kept) = (0, 0);
        while (next < _checking.Count && (next % 16 != 0 || Stopwatch.GetElapsedTime(began) < MaxCheckTime))
        {
            var watched = _checking[next++];
            if (!IsDone(watched))
            {
                _checking[kept++] = watched;
            }
        }

        // Work that there was no time for comes first at the next tick.
        var isLeft = next < _checking.Count;
        lock (_watchLock)
        {
            if (isLeft)
            {
                _watched.InsertRange(0, _checking[next..]);
            }

            _watched.AddRange(_checking[..kept]);
        }

        _checking.Clear();
        return isLeft ? MonitorSample.Stalled : kept > 0 ? MonitorSample.InCall : MonitorSample.Busy;
    }

    private bool IsDone(IWatched watched)
    {
        try
        {
            return !watched.Check();
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

        // Either this sees the call that has just begun, or the thread that began it sees that the monitor sleeps.
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
