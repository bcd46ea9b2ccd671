using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>
/// The threads of a group: an owner for each loop and, in an adaptive group, blocked threads (which lost their loop in a call that has not
/// returned) and parked threads (which were blocked and wait for another loop).
/// </summary>
/// <remarks>
/// <para>
/// With <see cref="EventLoopGroupOptions.MaxBlockedThreads"/> blocked threads the group is <see cref="IsSaturated"/>, and its loops hand
/// further calls to the thread pool. Each loop may be in a call at that moment and lose its thread as well, so there are never more threads
/// than that number and twice the loops together.
/// </para>
/// <para>While the system starts no thread, each loop keeps its thread, and the monitor tries again.</para>
/// </remarks>
/// <param name="options">The group's options.</param>
/// <param name="notifications">Calls the notifications of the options.</param>
internal sealed class LoopThreads(EventLoopGroupOptions options, Notifications notifications)
{
    /// <summary>The time between two attempts to start a thread after the system has refused one.</summary>
    private static readonly TimeSpan RetryInterval = TimeSpan.FromMilliseconds(100);

    private readonly Lock _lock = new();

    // A stack: threads that are not needed stay at the bottom until they time out.
    private readonly List<LoopThread> _parked = [];
    private readonly HashSet<LoopThread> _running = [];
    private int _blocked;
    private int _made;
    private bool _closed;
    private volatile bool _saturated;

    // Why the system has started no thread, until it starts one; and when it refused.
    private volatile Exception? _startFailure;
    private long _startFailed;

    /// <summary>The CPU-bound calls of the group. They take at most half of the threads that may be blocked.</summary>
    internal CpuBoundCalls CpuBound { get; } = new(Math.Clamp(options.MaxBlockedThreads / 2, 1, Environment.ProcessorCount));

    /// <summary>How long a parked thread waits for a loop before it ends.</summary>
    internal static TimeSpan IdleTimeout => TimeSpan.FromSeconds(20);

    /// <summary>Whether the loops must keep their threads: too many are blocked, or the system starts none.</summary>
    internal bool IsSaturated => _saturated || IsShort;

    /// <summary>Whether the system refused the last thread.</summary>
    internal bool IsShort => _startFailure is not null;

    /// <summary>Takes or starts a thread for a loop of a new group.</summary>
    /// <exception cref="InvalidOperationException">The system starts no thread.</exception>
    internal LoopThread TakeFirst() =>
        Take() ?? throw new InvalidOperationException("No thread could be started for an event loop.", _startFailure);

    /// <summary>Takes a parked thread, or starts one. The caller gives it a loop, or returns it.</summary>
    /// <returns>Null when the group is closing, or the system starts no thread.</returns>
    internal LoopThread? Take()
    {
        Exception failure;
        lock (_lock)
        {
            if (_closed)
            {
                return null;
            }

            if (_parked.Count > 0)
            {
                var parked = _parked[^1];
                _parked.RemoveAt(_parked.Count - 1);
                _running.Add(parked);
                return parked;
            }

            if (TryStart(out var started) is not { } reason)
            {
                _startFailure = null;
                _running.Add(started);
                return started;
            }

            var isKnown = IsShort;
            _startFailure = failure = reason;
            _startFailed = Stopwatch.GetTimestamp();
            if (isKnown)
            {
                return null;
            }
        }

        notifications.Call(options.OnThreadStartFailed, failure);
        return null;
    }

    /// <summary>Starts a thread.</summary>
    /// <returns>Why the system has not started it, or null.</returns>
    private Exception? TryStart(out LoopThread thread)
    {
        thread = new LoopThread(this, $"{options.ThreadName} {_made}");
        try
        {
            thread.Start();
            _made++;
            return null;
        }
        catch (Exception exception) when (exception is OutOfMemoryException or ThreadStartException)
        {
            // EAGAIN and ENOMEM (pthread_create(3)). The runtime reports both as a lack of memory.
            return exception;
        }
    }

    /// <summary>Asks the system for a thread again, if it has refused one a while ago. On the monitor's thread.</summary>
    internal void Retry()
    {
        if (IsShort && Stopwatch.GetElapsedTime(Volatile.Read(ref _startFailed)) >= RetryInterval && Take() is { } thread)
        {
            Return(thread);
        }
    }

    /// <summary>Returns a thread that got no loop.</summary>
    internal void Return(LoopThread thread)
    {
        if (!TryPark(thread))
        {
            thread.RequestExit();
        }
    }

    /// <summary>Retakes a loop from a thread that is in a call, and counts the thread as blocked.</summary>
    /// <param name="thread">The thread.</param>
    /// <param name="ownership">The loop's ownership.</param>
    /// <param name="word">The ownership's word at the sample that found the call.</param>
    /// <param name="epoch">The new epoch.</param>
    /// <returns>False when the thread has returned from the call.</returns>
    internal bool TryRetake(LoopThread thread, ref OwnershipWord ownership, long word, out long epoch)
    {
        // Under the lock, so that a thread that returns at once finds itself counted.
        lock (_lock)
        {
            if (!ownership.TryRetake(word, out epoch))
            {
                return false;
            }

            return SetBlocked(thread);
        }
    }

    /// <summary>Counts a thread that hands its loop off as blocked.</summary>
    internal void NoteBlocked(LoopThread thread) => LoopThread.RetryOnInterrupt(() =>
    {
        lock (_lock)
        {
            return SetBlocked(thread);
        }
    });

    private bool SetBlocked(LoopThread thread)
    {
        _running.Remove(thread);
        thread.IsBlocked = true;
        thread.BlockedSince = Stopwatch.GetTimestamp();
        _blocked++;
        return true;
    }

    /// <summary>Notes that a loop has changed threads, and reports saturation.</summary>
    internal void NoteHandOver()
    {
        lock (_lock)
        {
            if (_saturated || _blocked < options.MaxBlockedThreads)
            {
                return;
            }

            _saturated = true;
        }

        notifications.Call(options.OnThreadsSaturated, options.MaxBlockedThreads);
    }

    /// <summary>Parks a thread that runs no loop any more.</summary>
    /// <returns>False when the thread is to end.</returns>
    internal bool TryPark(LoopThread thread)
    {
        var recovered = false;
        var park = false;
        lock (_lock)
        {
            _running.Remove(thread);
            if (thread.IsBlocked)
            {
                thread.IsBlocked = false;
                _blocked--;
                if (_saturated && _blocked <= options.MaxBlockedThreads / 2)
                {
                    _saturated = false;
                    recovered = true;
                }
            }

            if (!_closed && options.Scheduling == LoopScheduling.Adaptive)
            {
                _parked.Add(thread);
                park = true;
            }
            else if (!_closed)
            {
                // Close waits for it.
                _running.Add(thread);
            }
        }

        if (recovered)
        {
            notifications.Call(static recovered => recovered?.Invoke(), options.OnThreadsRecovered);
        }

        return park;
    }

    /// <summary>Removes a parked thread that has timed out.</summary>
    /// <returns>False when it is not parked any more: another thread is about to give it a loop.</returns>
    internal bool TryRemoveParked(LoopThread thread)
    {
        lock (_lock)
        {
            return _parked.Remove(thread);
        }
    }

    /// <summary>
    /// Ends the threads, after all loops have ended, and waits for them. Blocked threads are not waited for; they end when their call
    /// returns.
    /// </summary>
    internal void Close()
    {
        LoopThread[] ending;
        lock (_lock)
        {
            _closed = true;
            ending = [.. _parked, .. _running];
            _parked.Clear();
            _running.Clear();
        }

        foreach (var thread in ending)
        {
            thread.RequestExit();
            thread.Join();
        }
    }
}
