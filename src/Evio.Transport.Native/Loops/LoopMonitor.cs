namespace Evio.Transport.Native.Loops;

/// <summary>Something that may get stuck in calls.</summary>
internal interface IMonitored
{
    /// <summary>Whether anything runs.</summary>
    bool IsBusy { get; }

    /// <summary>Acts if the same call runs as at the last look. On the monitor's thread.</summary>
    /// <returns>Whether anything runs, or has run since the last look.</returns>
    bool Look();
}

/// <summary>Looks every millisecond for calls that do not return, as long as any are made. While none are it sleeps.</summary>
internal sealed class LoopMonitor
{
    private static readonly TimeSpan LookInterval = TimeSpan.FromMilliseconds(1);

    /// <summary>
    /// After how many looks at nothing it sleeps. Being woken costs the loop a system call, which a server with some hundred requests a second should not
    /// pay for each of them.
    /// </summary>
    private const int LooksBeforeSleep = 16;

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

    internal void Start() => _thread.Start();

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
            _stopping = true;
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
        while (Pause())
        {
            var busy = false;
            foreach (var monitored in _monitored)
            {
                busy |= monitored.Look();
            }

            idleLooks = busy ? 0 : idleLooks + 1;
            if (idleLooks == LooksBeforeSleep)
            {
                idleLooks = 0;
                Sleep();
            }
        }
    }

    private bool Pause()
    {
        lock (_lock)
        {
            return !_stopping && (!Monitor.Wait(_lock, LookInterval) || !_stopping);
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
