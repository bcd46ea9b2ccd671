namespace Evio.Transport.Native.Loops;

/// <summary>
/// The calls of a group that were CPU-bound the last time. As many run at once as there are processors, or half of the
/// threads that may be blocked if that is less. The others are queued, since they
/// would only compete for processors with each other and with the loops.
/// </summary>
internal sealed class CpuBoundCalls(int limit)
{
    private readonly Lock _lock = new();
    private readonly LinkedList<ILoopCall> _waiting = new();
    private int _running;

    /// <summary>
    /// How long a call is queued before it runs anyway. The calls before it may compute for longer, may block this time, or may even wait
    /// for it. The thread pool also waits for half a second before it adds a thread.
    /// </summary>
    internal static TimeSpan MaxWaitForProcessor => TimeSpan.FromMilliseconds(500);

    /// <summary>Begins a call, or queues it.</summary>
    /// <returns>
    /// Null when the caller has to run the call, and to ask for the <see cref="Next"/> one afterwards; otherwise its place in the queue.
    /// </returns>
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
    /// <returns>The queued call that the caller has to run then, if there is one.</returns>
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

    /// <summary>Takes a call out of the queue, to run uncounted.</summary>
    /// <returns>False when it is not queued any more.</returns>
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

    /// <summary>Takes all calls out of the queue.</summary>
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
