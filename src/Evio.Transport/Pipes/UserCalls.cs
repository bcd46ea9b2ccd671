using System.Threading.Tasks.Sources;

namespace Evio.Transport.Pipes;

/// <summary>
/// The user's code, as far as it runs because a reader or writer has completed what that waited for. What it flushes, to whatever connection, waits for its end.
/// </summary>
internal sealed class UserCalls
{
    /// <summary>The longest list that a thread keeps for its next calls.</summary>
    private const int MaxKept = 256;

    [ThreadStatic]
    private static UserCalls? OfThisThread;

    // What waits for the end of the calls that the thread is in; from _begin on, of the innermost one. Some of it may have left by then.
    private List<DeferredFlush> _deferred = [];
    private int _begin;
    private int _depth;

    /// <summary>Whether the calling thread is inside of it.</summary>
    internal static bool IsInside => OfThisThread is { _depth: > 0 };

    /// <summary>Has output sent at the end of the innermost call. On a thread that is inside.</summary>
    internal static void Defer(DeferredFlush flush)
    {
        var calls = OfThisThread!;

        // One connection, as a rule, that has sent in between.
        if (calls._deferred.Count == calls._begin || calls._deferred[^1] != flush)
        {
            calls._deferred.Add(flush);
        }
    }

    /// <summary>Completes a wait, with an exception if there is one. The user's code runs in here.</summary>
    internal static void Complete<T>(ref ManualResetValueTaskSourceCore<T> wait, T result, Exception? failure)
    {
        var calls = OfThisThread ??= new UserCalls();
        var outer = calls._begin;
        calls._begin = calls._deferred.Count;
        calls._depth++;
        try
        {
            if (failure is null)
            {
                wait.SetResult(result);
            }
            else
            {
                wait.SetException(failure);
            }
        }
        finally
        {
            calls._depth--;
            if (calls._deferred.Count > calls._begin)
            {
                calls.SendDeferred();
            }

            calls._begin = outer;
        }
    }

    private void SendDeferred()
    {
        try
        {
            for (var i = _begin; i < _deferred.Count; i++)
            {
                _deferred[i].Send();
            }
        }
        finally
        {
            _deferred.RemoveRange(_begin, _deferred.Count - _begin);
            if (_deferred.Count == 0 && _deferred.Capacity > MaxKept)
            {
                _deferred = [];
            }
        }
    }
}
