using System.Runtime.CompilerServices;

namespace Evio.Transport.Native.Managed;

/// <summary>Awaited, it continues a method on a loop, in the loop's next pass; never, when the loop has ended.</summary>
internal readonly struct LoopTurn(EventLoop loop) : ICriticalNotifyCompletion
{
    public bool IsCompleted => false;

    public LoopTurn GetAwaiter() => this;

    public void GetResult()
    {
    }

    public void OnCompleted(Action continuation) => UnsafeOnCompleted(continuation);

    public void UnsafeOnCompleted(Action continuation) => loop.TryPostInternal(static continuation => ((Action)continuation!)(), continuation);
}
