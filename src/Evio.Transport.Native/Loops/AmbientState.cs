namespace Evio.Transport.Native.Loops;

/// <summary>
/// Removes the state that user code may leave on its thread, before other code runs there. Such state is values of
/// <see cref="AsyncLocal{T}"/>, a synchronization context, and the priority and name of a loop's thread. The cultures, the activity and the
/// principal are such values.
/// </summary>
/// <remarks>
/// The thread pool removes such state after each work item, and so does the reactor after each callback, posted call and timer. If nothing
/// was left behind, that costs a few comparisons, some 9 ns. Other state of a thread stays: thread-static fields, the processors that it is
/// bound to, its signal mask.
/// </remarks>
internal static class AmbientState
{
    // The framework has one default context for all threads, and gives it to a thread that has none yet.
    private static ExecutionContext? Default;

    /// <summary>
    /// Captures the default context. Called on a thread that has run no user code and was started without its creator's context.
    /// </summary>
    internal static void Begin() => Default ??= ExecutionContext.Capture();

    /// <summary>
    /// Removes what the previous code has left on the calling thread. Not to be called within user code, which would lose its own state.
    /// </summary>
    internal static void Restore()
    {
        RestoreContext();
        LoopThread.Current?.RestoreProperties();
    }

    private static void RestoreContext()
    {
        if (Default is { } context)
        {
            // This costs one comparison if it is the thread's context already.
            ExecutionContext.Restore(context);
        }

        if (SynchronizationContext.Current is not null)
        {
            SynchronizationContext.SetSynchronizationContext(null);
        }
    }

    /// <summary>
    /// Begins a callback without the caller's context. The disposal of the result gives the caller its context back. This is for callbacks
    /// that may run within other user code, for example a connection's <see cref="Events.Closed"/> when the callback of another connection
    /// closes it. The thread's own properties stay as they are.
    /// </summary>
    internal static Scope BeginCallback()
    {
        // Null if the caller has suppressed the flow of its context. Then the context stays.
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
