using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Loops;

/// <summary>A thread that runs a loop; before and after that, in adaptive groups, a spare one.</summary>
internal sealed class LoopThread
{
    [ThreadStatic]
    private static LoopThread? OnThisThread;

    private readonly LoopThreads _threads;
    private readonly Thread _thread;
    private readonly string _name;
    private readonly object _signal = new();
    private EventLoop? _assigned;
    private bool _dismissed;
    private int? _processor;

    // How deep the thread is in calls that keep its loop, and how many there have been.
    private int _keptDepth;
    private long _keptCalls;

    internal LoopThread(LoopThreads threads, string name)
    {
        _threads = threads;
        _name = name;
        _thread = new Thread(Run) { IsBackground = true, Name = name };
    }

    /// <summary>The calling thread, if it is one.</summary>
    internal static LoopThread? Current => OnThisThread;

    /// <summary>The loop that it runs, or ran when it went into its call; <see langword="null"/> when it knows that it has lost it.</summary>
    internal EventLoop? Loop { get; set; }

    /// <summary>The epoch of its ownership.</summary>
    internal long Epoch { get; set; }

    /// <summary>Whether it is in a call, and may lose the loop at any moment.</summary>
    internal bool InCall { get; set; }

    /// <summary>How many <see cref="LoopHold"/>s last on it, one inside the other.</summary>
    internal int Holds { get; set; }

    /// <summary>What the calls that it makes have left to be done for several of them. Its own.</summary>
    internal CallBatch Calls { get; } = new();

    /// <summary>The user code that it runs without giving its loop away, by a number that no other call of the thread's has; 0 when there is none. From any thread.</summary>
    internal long KeptCall => Volatile.Read(ref _keptDepth) > 0 ? Volatile.Read(ref _keptCalls) : 0;

    /// <summary>Whether it has lost its loop and not come back. Guarded by the lock of <see cref="LoopThreads"/>.</summary>
    internal bool IsBlocked { get; set; }

    /// <summary>Since when, in the ticks of <see cref="System.Diagnostics.Stopwatch"/>. The thread itself may read it once it has found that it lost the loop.</summary>
    internal long BlockedSince { get; set; }

    /// <summary>Takes note of the beginning (1) or the end (−1) of user code that keeps the loop. On this thread.</summary>
    internal void NoteKept(int change)
    {
        // Plain: others only take samples of them, now and then.
        _keptCalls++;
        _keptDepth += change;
    }

    /// <summary>The same for the calling thread, if it is one.</summary>
    internal static void NoteKeptCall(int change) => OnThisThread?.NoteKept(change);

    /// <summary>Starts the thread, without its creator's context; it waits for a loop.</summary>
    internal void Start() => _thread.UnsafeStart();

    internal void Join() => _thread.Join();

    /// <summary>Gives it a loop to run. It holds none.</summary>
    internal void Assign(EventLoop loop, long epoch)
    {
        Epoch = epoch;

        // The loop is nobody's until this is done.
        Persist(() => Signal(loop));
    }

    private bool Signal(EventLoop loop)
    {
        lock (_signal)
        {
            _assigned = loop;
            Monitor.Pulse(_signal);
            return true;
        }
    }

    /// <summary>Lets it end. It holds no loop.</summary>
    internal void Dismiss()
    {
        lock (_signal)
        {
            _dismissed = true;
            Monitor.Pulse(_signal);
        }
    }

    /// <summary>Binds the calling thread, this one, to a processor, unless it is.</summary>
    internal void BindTo(int processor)
    {
        if (_processor != processor)
        {
            ThreadAffinity.BindTo(processor);
            _processor = processor;
        }
    }

    /// <summary>Takes back all that user code may have left on the calling thread, this one. After each event, posted call and timer.</summary>
    internal void Restore()
    {
        AmbientState.Restore();
        if (!_thread.IsBackground)
        {
            _thread.IsBackground = true;
        }
    }

    /// <summary>The part of that which the thread keeps itself, and which costs next to nothing to look at.</summary>
    internal void RestoreProperties()
    {
        if (_thread.Priority != ThreadPriority.Normal)
        {
            _thread.Priority = ThreadPriority.Normal;
        }

        if (!ReferenceEquals(_thread.Name, _name))
        {
            _thread.Name = _name;
        }
    }

    private void Run()
    {
        OnThisThread = this;
        AmbientState.Begin();
        while (Persist(WaitForLoop) is { } loop)
        {
            Loop = loop;
            loop.Run(this);
            Loop = null;
            InCall = false;
            Holds = 0;
            if (!Persist(Park))
            {
                return;
            }
        }
    }

    private bool Park() => _threads.TryPark(this);

    /// <summary>
    /// Does what waits for locks, whatever user code has done to this thread: a handler, or a watchdog that a handler has given it to, may have called Thread.Interrupt,
    /// which ends the next wait with an exception. Nothing has been done then.
    /// </summary>
    internal static T Persist<T>(Func<T> action) => Persist(static action => action(), action);

    /// <inheritdoc cref="Persist{T}"/>
    internal static T Persist<TState, T>(Func<TState, T> action, TState state)
    {
        while (true)
        {
            try
            {
                return action(state);
            }
            catch (ThreadInterruptedException)
            {
                // Used up by this.
            }
        }
    }

    private EventLoop? WaitForLoop()
    {
        lock (_signal)
        {
            while (_assigned is null && !_dismissed)
            {
                // Idle for so long, it asks to go: somebody may be giving it a loop at this moment.
                if (!Monitor.Wait(_signal, LoopThreads.IdleTimeout) && _assigned is null && _threads.TryRemoveParked(this))
                {
                    return null;
                }
            }

            var loop = _assigned;
            _assigned = null;
            return loop;
        }
    }
}
