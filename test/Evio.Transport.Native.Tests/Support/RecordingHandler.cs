using System.Collections.Concurrent;

namespace Evio.Transport.Native.Tests.Support;

/// <summary>Records what a socket's handler is told.</summary>
internal sealed class RecordingHandler(StreamSocket socket) : IStreamHandler
{
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _seen;
    private int _closedCount;
    private int _stoppingCount;

    internal StreamSocket Socket => socket;

    /// <summary>All events that were ever reported.</summary>
    internal ReadyEvents Seen => (ReadyEvents)Volatile.Read(ref _seen);

    internal int ClosedCount => Volatile.Read(ref _closedCount);

    internal int StoppingCount => Volatile.Read(ref _stoppingCount);

    internal Task Closed => _closed.Task.Within();

    /// <summary>Calls that came on another thread than the loop's.</summary>
    internal ConcurrentQueue<string> OffLoop { get; } = new();

    /// <summary>What the test adds to each call.</summary>
    internal Action<RecordingHandler, ReadyEvents>? Ready { get; init; }

    internal Action? Stopping { get; init; }

    internal Action? AfterClosed { get; init; }

    /// <summary>Forgets the events seen so far.</summary>
    internal void ForgetEvents() => Volatile.Write(ref _seen, 0);

    public void OnReady(ReadyEvents events)
    {
        CheckLoop(nameof(OnReady));
        Interlocked.Or(ref _seen, (int)events);
        Ready?.Invoke(this, events);
    }

    public void OnLoopStopping()
    {
        CheckLoop(nameof(OnLoopStopping));
        Interlocked.Increment(ref _stoppingCount);
        Stopping?.Invoke();
    }

    public void OnClosed()
    {
        CheckLoop(nameof(OnClosed));
        Interlocked.Increment(ref _closedCount);
        _closed.TrySetResult();
        AfterClosed?.Invoke();
    }

    private void CheckLoop(string call)
    {
        if (!socket.Loop.IsCurrent)
        {
            OffLoop.Enqueue(call);
        }
    }
}
