namespace Evio.Transport.Pipes;

/// <summary>Whether the calling thread is inside the user's code because a reader or writer has completed what that waited for.</summary>
internal static class UserCalls
{
    [ThreadStatic]
    private static int Depth;

    internal static bool IsInside => Depth > 0;

    internal static void Begin() => Depth++;

    internal static void End() => Depth--;
}
