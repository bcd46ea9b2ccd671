using System.Diagnostics.CodeAnalysis;
using Exploration;
using BclInterlocked = System.Threading.Interlocked;
using BclTaskCompletionSource = System.Threading.Tasks.TaskCompletionSource;
using BclVolatile = System.Threading.Volatile;

// The namespace that encloses the product's: what is here has precedence over what its using directives bring.
namespace Evio;

internal static class Interlocked
{
    internal static int Increment(ref int location)
    {
        Execution.Current.Point("increments");
        return BclInterlocked.Increment(ref location);
    }

    internal static int Decrement(ref int location)
    {
        Execution.Current.Point("decrements");
        return BclInterlocked.Decrement(ref location);
    }

    internal static int Add(ref int location, int value)
    {
        Execution.Current.Point("adds");
        return BclInterlocked.Add(ref location, value);
    }

    internal static int Or(ref int location, int value)
    {
        Execution.Current.Point("sets bits");
        return BclInterlocked.Or(ref location, value);
    }

    internal static int Exchange(ref int location, int value)
    {
        Execution.Current.Point("exchanges");
        return BclInterlocked.Exchange(ref location, value);
    }

    internal static long Exchange(ref long location, long value)
    {
        Execution.Current.Point("exchanges");
        return BclInterlocked.Exchange(ref location, value);
    }

    [return: NotNullIfNotNull(nameof(location))]
    internal static T Exchange<T>([NotNullIfNotNull(nameof(value))] ref T location, T value)
    {
        Execution.Current.Point("exchanges");
        return BclInterlocked.Exchange(ref location, value);
    }

    internal static long Increment(ref long location)
    {
        Execution.Current.Point("increments");
        return BclInterlocked.Increment(ref location);
    }

    internal static int CompareExchange(ref int location, int value, int comparand)
    {
        Execution.Current.Point("compares and exchanges");
        return BclInterlocked.CompareExchange(ref location, value, comparand);
    }

    internal static long CompareExchange(ref long location, long value, long comparand)
    {
        Execution.Current.Point("compares and exchanges");
        return BclInterlocked.CompareExchange(ref location, value, comparand);
    }

    [return: NotNullIfNotNull(nameof(location))]
    internal static T CompareExchange<T>(ref T location, T value, T comparand)
    {
        Execution.Current.Point("compares and exchanges");
        return BclInterlocked.CompareExchange(ref location, value, comparand);
    }

    internal static void MemoryBarrier() => Execution.Current.Point("passes a barrier");
}

internal static class Volatile
{
    internal static int Read(ref readonly int location)
    {
        Execution.Current.Point("reads");
        return BclVolatile.Read(in location);
    }

    internal static long Read(ref readonly long location)
    {
        Execution.Current.Point("reads");
        return BclVolatile.Read(in location);
    }

    internal static bool Read(ref readonly bool location)
    {
        Execution.Current.Point("reads");
        return BclVolatile.Read(in location);
    }

    [return: NotNullIfNotNull(nameof(location))]
    internal static T Read<T>([NotNullIfNotNull(nameof(location))] ref readonly T location)
        where T : class?
    {
        Execution.Current.Point("reads");
        return BclVolatile.Read(in location);
    }

    internal static void Write(ref int location, int value)
    {
        Execution.Current.Point("writes");
        BclVolatile.Write(ref location, value);
    }

    internal static void Write(ref bool location, bool value)
    {
        Execution.Current.Point("writes");
        BclVolatile.Write(ref location, value);
    }

    internal static void Write<T>([NotNullIfNotNull(nameof(value))] ref T location, T value)
        where T : class?
    {
        Execution.Current.Point("writes");
        BclVolatile.Write(ref location, value);
    }
}

/// <summary>A thread that is an actor.</summary>
internal sealed class Thread(Action start)
{
    private static readonly Thread AnyThread = new(static () => { });
    private static readonly Thread AnyPoolThread = new(static () => { });

    private Actor? _actor;

    /// <summary>Says only what kind of thread it is. A scenario's actors are on threads of the pool.</summary>
    internal static Thread CurrentThread => Actor.Current.IsThread ? AnyThread : AnyPoolThread;

    internal bool IsThreadPoolThread => this == AnyPoolThread;

    internal bool IsBackground { get; set; }

    internal string Name { get; set; } = "";

    internal ThreadPriority Priority { get; set; } = ThreadPriority.Normal;

    internal ThreadState ThreadState => _actor is null ? ThreadState.Unstarted : ThreadState.Running;

    internal void UnsafeStart()
    {
        if (Execution.Current.RefusesThreads)
        {
            Execution.Current.Point("is refused a thread");
            throw new InsufficientMemoryException();
        }

        _actor = Execution.Current.Spawn(Name, start, isThread: true);
        Execution.Current.Point("starts a thread");
    }

    internal void Join() => Execution.Current.Block("joins a thread", () => _actor!.IsDone);

    internal static void Sleep(int milliseconds) => Sleep(TimeSpan.FromMilliseconds(milliseconds));

    internal static void Sleep(TimeSpan time) => Execution.WaitForTime(time);
}

/// <summary>Fires once, as a work item, when time has passed. One that is disposed of holds no time up.</summary>
internal sealed class Timer : IDisposable
{
    private bool _disposed;

    internal Timer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        Assert.Equal(Timeout.InfiniteTimeSpan, period);
        Execution.Current.Spawn(
            "timer",
            () =>
            {
                Execution.WaitForTime(dueTime, unless: () => _disposed);
                if (!_disposed)
                {
                    callback(state);
                }
            },
            isThread: false);
    }

    public void Dispose() => _disposed = true;
}

/// <summary>A pool with a thread for every work item; each is an actor.</summary>
internal static class ThreadPool
{
    internal static void UnsafeQueueUserWorkItem(IThreadPoolWorkItem item, bool preferLocal) => Queue(item.Execute);

    internal static void UnsafeQueueUserWorkItem<T>(Action<T> callback, T state, bool preferLocal) => Queue(() => callback(state));

    internal static void UnsafeQueueUserWorkItem(WaitCallback callback, object? state) => Queue(() => callback(state));

    private static void Queue(Action action)
    {
        Execution.Current.Spawn("work item", action, isThread: false);
        Execution.Current.Point("queues a work item");
    }
}

/// <summary>Continuations that are to run asynchronously are a work item, in which the task is completed as well.</summary>
internal class TaskCompletionSource(TaskCreationOptions options = TaskCreationOptions.None)
{
    private readonly BclTaskCompletionSource _inner = new();
    private bool _set;

    internal Task Task => _inner.Task;

    internal void SetResult() => Set(TrySetResult());

    internal bool TrySetResult() => TrySet(_inner.SetResult);

    internal void SetException(Exception exception) => Set(TrySetException(exception));

    internal bool TrySetException(Exception exception) => TrySet(() => _inner.SetException(exception));

    internal void SetCanceled(CancellationToken token) => Set(TrySetCanceled(token));

    internal bool TrySetCanceled(CancellationToken token) => TrySet(() => _inner.SetCanceled(token));

    private static void Set(bool first)
    {
        if (!first)
        {
            throw new InvalidOperationException("The task was completed before.");
        }
    }

    private bool TrySet(Action set)
    {
        Execution.Current.Point("completes a task");
        if (_set)
        {
            return false;
        }

        _set = true;
        if (options.HasFlag(TaskCreationOptions.RunContinuationsAsynchronously))
        {
            _ = Execution.Current.Spawn("continuation", set, isThread: false);
        }
        else
        {
            set();
        }

        return true;
    }
}
