namespace Evio.Transport.Native.Loops;

/// <summary>
/// The calls of a group that computed for long the last time. As many are made at once as there are processors, since more of them would only take turns with each other, and
/// with the loops; the others wait until one has ended.
/// </summary>
internal sealed class CpuBoundCalls(int limit)
{
    private readonly Lock _lock = new();
    private readonly LinkedList<ILoopCall> _waiting = new();
    private int _running;

    /// <summary>
    /// How long a call waits before it is made nevertheless. Those before it may compute for longer, or block this time, and one of them may even wait for it. The thread pool,
    /// too, looks on for half a second before it adds a thread.
    /// </summary>
    internal static TimeSpan MaxWaitForProcessor => TimeSpan.FromMilliseconds(500);

    /// <summary>Begins a call, or has it wait.</summary>
    /// <returns>Null when the caller has to make the call, and to ask for the <see cref="Next"/> one afterwards; its place, when it waits.</returns>
    internal LinkedListNode<ILoopCall>? BeginOrWait(ILoopCall call)
    {
        lock (_lock)
        {
            if (_running == limit)
            {
                return _waiting.AddLast(call);
            }

            _running++;
            return null;
        }
    }

    /// <summary>Ends a call.</summary>
    /// <returns>The one that the caller has to make then, if any waits.</returns>
    internal ILoopCall? Next()
    {
        lock (_lock)
        {
            if (_waiting.First is { } first)
            {
                _waiting.Remove(first);
                return first.Value;
            }

            _running--;
            return null;
        }
    }

    /// <summary>Takes a call back, to be made now, and not counted.</summary>
    /// <returns>False when it does not wait any more.</returns>
    internal bool TryWithdraw(LinkedListNode<ILoopCall> place)
    {
        lock (_lock)
        {
            if (place.List is null)
            {
                return false;
            }

            _waiting.Remove(place);
            return true;
        }
    }

    /// <summary>Takes back all that wait.</summary>
    internal ILoopCall[] Withdraw()
    {
        lock (_lock)
        {
            ILoopCall[] all = [.. _waiting];
            _waiting.Clear();
            return all;
        }
    }
}
