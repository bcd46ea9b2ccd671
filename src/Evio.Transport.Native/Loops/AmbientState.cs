namespace Evio.Transport.Native.Loops;

/// <summary>
/// What user code may leave behind on the thread that it runs on, for the code of others that runs there next: values of <see cref="AsyncLocal{T}"/>, the cultures,
/// the activity and the principal, which are such values, a synchronization context, and a loop's thread's priority and name.
/// </summary>
/// <remarks>
/// The thread pool takes these back after each work item, and so does the reactor after each callback, posted call and timer. It costs a few looks, some 9 ns, where nothing
/// was left behind. What else a thread keeps stays: thread-static fields, the processors that it is bound to, its signal mask.
/// </remarks>
internal static class AmbientState
{
    // The framework has one default context for all threads, and gives it to a thread that has none yet.
    private static ExecutionContext? Default;

    /// <summary>To be called on a thread that has run no user code and was started without its creator's context.</summary>
    internal static void Begin() => Default ??= ExecutionContext.Capture();

    /// <summary>Takes back what the code before has left on the calling thread. Not within other user code, which would lose its own.</summary>
    internal static void Restore()
    {
        RestoreContext();
        LoopThread.Current?.RestoreProperties();
    }

    private static void RestoreContext()
    {
        if (Default is { } context)
        {
            // Costs a comparison when it is the thread's context already.
            ExecutionContext.Restore(context);
        }

        if (SynchronizationContext.Current is not null)
        {
            SynchronizationContext.SetSynchronizationContext(null);
        }
    }

    /// <summary>
    /// Has a callback begin without the caller's context, and gives the caller its own back: for callbacks that may be made within the code of others,
    /// a connection's <see cref="Events.Closed"/> for example, if another one's callback closes it. The thread's own properties stay as they are.
    /// </summary>
    internal static Scope BeginCallback()
    {
        // Null where the caller has suppressed the flow of its context, which then stays.
        var scope = new Scope(ExecutionContext.Capture(), SynchronizationContext.Current);
        if (scope.IsFlowing)
        {
            RestoreContext();
        }

        return scope;
    }

    internal readonly ref struct Scope(ExecutionContext? context, SynchronizationContext? synchronization)
    {
        internal bool IsFlowing => context is not null;

        public void Dispose()
        {
            if (context is not null)
            {
                ExecutionContext.Restore(context);
            }

            if (SynchronizationContext.Current != synchronization)
            {
                SynchronizationContext.SetSynchronizationContext(synchronization);
            }
        }
    }
}
