using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>
/// The threads of a group: one for each loop, and in an adaptive group those that are blocked (they lost their loop in a call that has not returned) and
/// the spares, which were blocked and wait to take over a loop.
/// </summary>
/// <remarks>
/// Their number is bounded. With <c>limit</c> blocked threads the group is <see cref="IsExhausted"/>, and its loops leave further calls to the thread
/// pool. Each may be in one call at that moment and lose its thread as well. So there are never more than twice the loops and the limit together.
/// The same holds while the system starts no thread, for want of memory or descriptors: each loop keeps the thread that it has, and the monitor tries again.
/// </remarks>
/// <param name="options">The group's.</param>
/// <param name="notifications">Calls what the group's user wants to be told.</param>
internal sealed class LoopThreads(EventLoopGroupOptions options, Notifications notifications)
{
    /// <summary>How long after the system has refused a thread the next one is asked for.</summary>
    private static readonly TimeSpan RetryInterval = TimeSpan.FromMilliseconds(100);

    private readonly Lock _lock = new();

    // The last one is taken first, so that those that are not needed come to the end of their time.
    private readonly List<LoopThread> _parked = [];
    private readonly HashSet<LoopThread> _running = [];
    private int _blocked;
    private int _made;
    private bool _closed;
    private volatile bool _exhausted;

    // Why the system has started no thread, until it starts one; and when it was asked.
    private volatile Exception? _startFailure;
    private long _startFailed;

    /// <summary>The calls for which threads are blocked because they compute. They leave half of the blocked threads to those that block.</summary>
    internal CpuBoundCalls Computing { get; } = new(Math.Clamp(options.MaxBlockedThreads / 2, 1, Environment.ProcessorCount));

    /// <summary>How long a spare waits for a loop before it ends.</summary>
    internal static TimeSpan IdleTimeout => TimeSpan.FromSeconds(20);

    /// <summary>Whether the loops must not risk their threads: too many are blocked, or there is no other one to be had.</summary>
    internal bool IsExhausted => _exhausted || IsShort;

    /// <summary>Whether the system has started no thread when it was asked last.</summary>
    internal bool IsShort => _startFailure is not null;

    /// <summary>Takes a spare, or makes a thread, for a group that is being made.</summary>
    /// <exception cref="InvalidOperationException">The system starts no thread.</exception>
    internal LoopThread TakeFirst() =>
        Take() ?? throw new InvalidOperationException("No thread could be started for an event loop.", _startFailure);

    /// <summary>Takes a spare, or makes a thread. It is to be given a loop, or back.</summary>
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
                var spare = _parked[^1];
                _parked.RemoveAt(_parked.Count - 1);
                _running.Add(spare);
                return spare;
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

    /// <summary>Makes a thread.</summary>
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
            // EAGAIN and ENOMEM (pthread_create(3)). The runtime has the first for memory as well.
            return exception;
        }
    }

    /// <summary>Asks for a thread again after a while, if the system has started none. On the monitor's thread.</summary>
    internal void Retry()
    {
        if (IsShort && Stopwatch.GetElapsedTime(Volatile.Read(ref _startFailed)) >= RetryInterval && Take() is { } thread)
        {
            Return(thread);
        }
    }

    /// <summary>Gives back a thread that has got no loop.</summary>
    internal void Return(LoopThread thread)
    {
        if (!TryPark(thread))
        {
            thread.Dismiss();
        }
    }

    /// <summary>Takes a loop from a thread that is in a call.</summary>
    /// <param name="thread">The thread, which is blocked then.</param>
    /// <param name="ownership">Whose the loop is.</param>
    /// <param name="word">The call.</param>
    /// <param name="epoch">The new epoch.</param>
    /// <returns>False when it came back just in time.</returns>
    internal bool TryRetake(LoopThread thread, ref OwnershipWord ownership, long word, out long epoch)
    {
        // Under the lock, so that the thread finds itself counted, should it come back at once.
        lock (_lock)
        {
            if (!ownership.TryRetake(word, out epoch))
            {
                return false;
            }

            return SetBlocked(thread);
        }
    }

    /// <summary>A thread gives its loop to another one, and is blocked from now on.</summary>
    internal void NoteBlocked(LoopThread thread) => LoopThread.Persist(() =>
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

    /// <summary>A thread has lost its loop.</summary>
    internal void NoteTakeOver()
    {
        lock (_lock)
        {
            if (_exhausted || _blocked < options.MaxBlockedThreads)
            {
                return;
            }

            _exhausted = true;
        }

        notifications.Call(options.OnThreadsExhausted, options.MaxBlockedThreads);
    }

    /// <summary>Keeps a thread that runs no loop any more for the next take-over.</summary>
    /// <returns>False when it is to end.</returns>
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
                if (_exhausted && _blocked <= options.MaxBlockedThreads / 2)
                {
                    _exhausted = false;
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
                // Whoever closes waits for it.
                _running.Add(thread);
            }
        }

        if (recovered)
        {
            notifications.Call(static recovered => recovered?.Invoke(), options.OnThreadsRecovered);
        }

        return park;
    }

    /// <summary>Lets a parked thread end that has waited for long.</summary>
    /// <returns>False when it is not parked any more: somebody is about to give it a loop.</returns>
    internal bool TryRemoveParked(LoopThread thread)
    {
        lock (_lock)
        {
            return _parked.Remove(thread);
        }
    }

    /// <summary>Ends the threads when no loop runs any more, and waits for all but those that are blocked, which end when they come back.</summary>
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
            thread.Dismiss();
            thread.Join();
        }
    }
}
