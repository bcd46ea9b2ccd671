using System.Threading.Tasks.Sources;

namespace Evio.Transport.Pipes;

/// <summary>
/// User code that runs because a reader or a writer has completed a wait. Output that it flushes, to whatever connection, is deferred to
/// the end of the code. If the thread makes several such calls in a row, the output is deferred to the end of that batch.
/// </summary>
internal sealed class UserCalls : IThreadPoolWorkItem
{
    /// <summary>The largest capacity of the list that a thread keeps for its next calls.</summary>
    private const int MaxKept = 256;

    [ThreadStatic]
    private static UserCalls? OfThisThread;

    // The flushes that are deferred to the end of the thread's current calls, or of earlier calls of the same batch. Those from _begin on
    // belong to the innermost call. Some of them may have been sent by then.
    private List<DeferredFlush> _deferred = [];
    private int _begin;
    private int _depth;
    private bool _isInBatch;

    /// <summary>Whether the calling thread is inside of user code.</summary>
    internal static bool IsInside => OfThisThread is { _depth: > 0 };

    /// <summary>Whether the calling thread makes a call of a batch, after the last of which it sends.</summary>
    internal static bool IsInBatch => OfThisThread is { _isInBatch: true };

    /// <summary>
    /// Defers output to the end of the innermost call, or, if that call belongs to a batch, to the end of the batch. The calling thread is
    /// inside of user code.
    /// </summary>
    internal static void Defer(DeferredFlush flush)
    {
        var calls = OfThisThread!;

        // The last flush in the list is usually this one, of the same connection, which has sent in between.
        if (calls._deferred.Count == calls._begin || calls._deferred[^1] != flush)
        {
            calls._deferred.Add(flush);
        }
    }

    /// <summary>Makes one call of a batch.</summary>
    /// <returns>The flush that is to be executed after the last call, if output is deferred to that.</returns>
    internal static IThreadPoolWorkItem? RunInBatch(IThreadPoolWorkItem call)
    {
        var calls = OfThisThread ??= new UserCalls();
        if (calls._isInBatch)
        {
            // A call within a call of the batch.
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
            // The code that catches the exception may not execute the flush.
            calls._isInBatch = false;
            calls.SendDeferred();
            throw;
        }

        calls._isInBatch = false;
        return calls._deferred.Count > 0 ? calls : null;
    }

    /// <summary>Completes a wait, with an exception if there is one. User code runs in here.</summary>
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
            // The monitor sends the flush that an exception has interrupted. The others are sent when this is called again.
            _deferred.RemoveRange(_begin, next - _begin);
            if (_deferred.Count == 0 && _deferred.Capacity > MaxKept)
            {
                _deferred = [];
            }
        }
    }
}
