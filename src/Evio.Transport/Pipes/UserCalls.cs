using System.Threading.Tasks.Sources;

namespace Evio.Transport.Pipes;

/// <summary>The user's code, as far as it runs because a reader or writer has completed what that waited for.</summary>
internal static class UserCalls
{
    [ThreadStatic]
    private static int Depth;

    /// <summary>Whether the calling thread is inside of it.</summary>
    internal static bool IsInside => Depth > 0;

    /// <summary>Completes a wait, with an exception if there is one. The user's code runs in here.</summary>
    internal static void Complete<T>(ref ManualResetValueTaskSourceCore<T> wait, T result, Exception? failure)
    {
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
        }
    }
}
