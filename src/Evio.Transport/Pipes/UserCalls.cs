using System.Threading.Tasks.Sources;

namespace Evio.Transport.Pipes;

/// <summary>
/// The user's code, as far as it runs because a reader or writer has completed what that waited for. What it flushes, to whatever connection, waits for its end.
/// </summary>
internal static class UserCalls
{
    [ThreadStatic]
    private static int Depth;

    // What waits for the end of the calls that the thread is in, those of the innermost one last. Some of it may have left by then.
    [ThreadStatic]
    private static List<DeferredFlush>? Deferred;

    /// <summary>Whether the calling thread is inside of it.</summary>
    internal static bool IsInside => Depth > 0;

    /// <summary>Has output sent at the end of the innermost call.</summary>
    internal static void Defer(DeferredFlush flush) => (Deferred ??= []).Add(flush);

    /// <summary>Completes a wait, with an exception if there is one. The user's code runs in here.</summary>
    internal static void Complete<T>(ref ManualResetValueTaskSourceCore<T> wait, T result, Exception? failure)
    {
        var outer = Deferred?.Count ?? 0;
        Depth++;
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
            Depth--;
            if (Deferred is { } deferred && deferred.Count > outer)
            {
                SendDeferred(deferred, outer);
            }
        }
    }

    private static void SendDeferred(List<DeferredFlush> deferred, int outer)
    {
        // Sending may run user code in turn (a flush that goes on), which finds its own end.
        for (var i = outer; i < deferred.Count; i++)
        {
            deferred[i].Send();
        }

        deferred.RemoveRange(outer, deferred.Count - outer);
    }
}
