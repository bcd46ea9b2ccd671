using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Loops;

/// <summary>A thread that runs a loop. In adaptive groups it waits for another loop afterwards.</summary>
internal sealed class LoopThread
{
    [ThreadStatic]
    private static LoopThread? OnThisThread;

    private readonly LoopThreads _threads;
    private readonly Thread _thread;
    private readonly string _name;
    private readonly object _signal = new();
    private EventLoop? _assigned;
    private bool _exitRequested;
    private int? _processor;
    private ulong[]? _unbound;

    // The nesting depth of calls that keep the thread's loop, and a number that changes with each beginning and end of one.
    private int _keptDepth;
    private long _keptCalls;

    internal LoopThread(LoopThreads threads, string name)
    {
        _threads = threads;
        _name = name;
        _thread = new Thread(Run) { IsBackground = true, Name = name };
    }

    /// <summary>The calling thread, if it is a loop's thread.</summary>
    internal static LoopThread? Current => OnThisThread;

    /// <summary>
    /// The loop that the thread runs, or ran when it began its call; <see langword="null"/> once it knows that it has lost the loop.
    /// </summary>
    internal EventLoop? Loop { get; set; }

    /// <summary>The epoch of the thread's ownership.</summary>
    internal long Epoch { get; set; }

    /// <summary>Whether the thread is in a call, and may lose the loop at any moment.</summary>
    internal bool InCall { get; set; }

    /// <summary>The number of nested <see cref="LoopHold"/>s on the thread.</summary>
    internal int Holds { get; set; }

    /// <summary>The flush that the thread's calls share. Only this thread uses it.</summary>
    internal CallBatch Calls { get; } = new();

    /// <summary>
    /// The unique number of the user code that keeps the thread's loop at the moment; 0 when there is none. From any thread.
    /// </summary>
    internal long KeptCall => Volatile.Read(ref _keptDepth) > 0 ? Volatile.Read(ref _keptCalls) : 0;

    /// <summary>Whether the thread has lost its loop and has not returned. Guarded by the lock of <see cref="LoopThreads"/>.</summary>
    internal bool IsBlocked { get; set; }

    /// <summary>
    /// When the thread became blocked, in the ticks of <see cref="System.Diagnostics.Stopwatch"/>. The thread itself may read it once it
    /// has found that it lost the loop.
    /// </summary>
    internal long BlockedSince { get; set; }

    /// <summary>Notes the beginning (1) or the end (−1) of user code that keeps the loop. On this thread.</summary>
    internal void NoteKept(int change)
    {
        // Plain writes: other threads only sample the fields.
        _keptCalls++;
        _keptDepth += change;
    }

    /// <summary>The same for the calling thread, if it is a loop's thread.</summary>
    internal static void NoteKeptCall(int change) => OnThisThread?.NoteKept(change);

    /// <summary>Starts the thread, without its creator's context. The thread waits for a loop.</summary>
    internal void Start() => _thread.UnsafeStart();

    internal void Join() => _thread.Join();

    /// <summary>Gives the thread a loop to run. It has none so far.</summary>
    internal void Assign(EventLoop loop, long epoch)
    {
        Epoch = epoch;

        // No thread runs the loop until this is done.
        RetryOnInterrupt(() => Signal(loop));
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

    /// <summary>Lets the thread end. It has no loop.</summary>
    internal void RequestExit()
    {
        lock (_signal)
        {
            _exitRequested = true;
            Monitor.Pulse(_signal);
        }
    }

    /// <summary>Binds this thread, which is the calling one, to a processor, unless it is bound there already.</summary>
    internal void BindTo(int processor)
    {
        if (_processor != processor)
        {
            _unbound ??= ThreadAffinity.Get();
            ThreadAffinity.BindTo(processor);
            _processor = processor;
        }
    }

    /// <summary>
    /// Lets this thread, which is the calling one, run on all processors that it could run on before it was bound to one. The next loop binds
    /// it again.
    /// </summary>
    internal void Unbind()
    {
        if (_processor is not null && _unbound is not null)
        {
            ThreadAffinity.Restore(_unbound);
            _processor = null;
        }
    }

    /// <summary>
    /// Removes all state that user code may have left on this thread, which is the calling one. After each event, posted call and timer.
    /// </summary>
    internal void Restore()
    {
        AmbientState.Restore();
        if (!_thread.IsBackground)
        {
            _thread.IsBackground = true;
        }
    }

    /// <summary>Restores the thread's priority and name. To check them costs next to nothing.</summary>
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
        while (RetryOnInterrupt(WaitForLoop) is { } loop)
        {
            Loop = loop;
            loop.Run(this);
            Loop = null;
            InCall = false;
            Holds = 0;
            if (!RetryOnInterrupt(Park))
            {
                return;
            }
        }
    }

    private bool Park() => _threads.TryPark(this);

    /// <summary>
    /// Runs code that waits for locks, and repeats it if the thread was interrupted. A handler, or a watchdog that has the thread from a
    /// handler, may have called Thread.Interrupt. That ends the next wait with an exception, before the code has done anything.
    /// </summary>
    internal static T RetryOnInterrupt<T>(Func<T> action) => RetryOnInterrupt(static action => action(), action);

    /// <inheritdoc cref="RetryOnInterrupt{T}"/>
    internal static T RetryOnInterrupt<TState, T>(Func<TState, T> action, TState state)
    {
        while (true)
        {
            try
            {
                return action(state);
            }
            catch (ThreadInterruptedException)
            {
                // The exception has used up the interruption.
            }
        }
    }

    private EventLoop? WaitForLoop()
    {
        lock (_signal)
        {
            while (_assigned is null && !_exitRequested)
            {
                // After the timeout the thread asks to end, because another thread may be giving it a loop at this moment.
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
