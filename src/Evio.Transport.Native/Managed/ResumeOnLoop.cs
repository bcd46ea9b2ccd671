using System.Runtime.CompilerServices;

namespace Evio.Transport.Native.Managed;

/// <summary>
/// An awaitable that continues a method on a loop, in the loop's next pass or after a delay. If the loop has ended, the method does not
/// continue. The loop's timers need no thread of the runtime, which cannot be started without descriptors.
/// </summary>
internal readonly struct ResumeOnLoop(EventLoop loop, TimeSpan delay = default) : ICriticalNotifyCompletion
{
    public bool IsCompleted => false;

    public ResumeOnLoop GetAwaiter() => this;

    public void GetResult()
    {
    }

    public void OnCompleted(Action continuation) => UnsafeOnCompleted(continuation);

    public void UnsafeOnCompleted(Action continuation)
    {
        if (delay > TimeSpan.Zero)
        {
            _ = loop.ScheduleInternal(delay, static continuation => ((Action)continuation!)(), continuation);
        }
        else
        {
            _ = loop.TryPostInternal(static continuation => ((Action)continuation!)(), continuation);
        }
    }
}
