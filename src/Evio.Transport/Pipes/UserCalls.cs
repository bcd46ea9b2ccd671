using System.Threading.Tasks.Sources;

namespace Evio.Transport.Pipes;

/// <summary>
/// The user's code, as far as it runs because a reader or writer has completed what that waited for. What it flushes, to whatever connection, waits for its end; or for the end of the calls that the
/// thread makes one after the other, when this is one of them.
/// </summary>
internal sealed class UserCalls : IThreadPoolWorkItem
{
    /// <summary>The longest list that a thread keeps for its next calls.</summary>
    private const int MaxKept = 256;

    [ThreadStatic]
    private static UserCalls? OfThisThread;

    // What waits for the end of the calls that the thread is in, or of those before in the same batch; from _begin on, of the innermost one. Some of it may have left by then.
    private List<DeferredFlush> _deferred = [];
    private int _begin;
    private int _depth;
    private bool _isInBatch;

    /// <summary>Whether the calling thread is inside of it.</summary>
    internal static bool IsInside => OfThisThread is { _depth: > 0 };

    /// <summary>Whether the calling thread is making one of several calls, after the last of which it sends.</summary>
    internal static bool IsInBatch => OfThisThread is { _isInBatch: true };

    /// <summary>Has output sent at the end of the innermost call, or, if that is one of several, of the last of these. On a thread that is inside.</summary>
    internal static void Defer(DeferredFlush flush)
    {
        var calls = OfThisThread!;

        // One connection, as a rule, that has sent in between.
        if (calls._deferred.Count == calls._begin || calls._deferred[^1] != flush)
        {
            calls._deferred.Add(flush);
        }
    }

    /// <summary>Makes one of several calls.</summary>
    /// <returns>What is to be executed after the last of them, if anything waits for that.</returns>
    internal static IThreadPoolWorkItem? RunInBatch(IThreadPoolWorkItem call)
    {
        var calls = OfThisThread ??= new UserCalls();
        if (calls._isInBatch)
        {
            // Within one of them.
            call.Execute();
            return null;
        }

        calls._isInBatch = true;
        try
        {
            call.Execute();
        }
        catch
        {
            // Whoever gets it may not come back for the rest.
            calls._isInBatch = false;
            calls.SendDeferred();
            throw;
        }

        calls._isInBatch = false;
        return calls._deferred.Count > 0 ? calls : null;
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
            if (calls._deferred.Count > calls._begin && !(calls._isInBatch && calls._depth == 0))
            {
                calls.SendDeferred();
            }

            calls._begin = outer;
        }
    }

    void IThreadPoolWorkItem.Execute() => SendDeferred();

    private void SendDeferred()
    {
        var next = _begin;
        try
        {
            while (next < _deferred.Count)
            {
                _deferred[next++].Send();
            }
        }
        finally
        {
            // One that was interrupted the monitor sends; the others come when this is called again.
            _deferred.RemoveRange(_begin, next - _begin);
            if (_deferred.Count == 0 && _deferred.Capacity > MaxKept)
            {
                _deferred = [];
            }
        }
    }
}
