using System.Threading.Tasks.Sources;

namespace Evio.Transport.Pipes;

/// <summary>What the caller of an operation that has to wait awaits: a read, a flush, an accept.</summary>
/// <remarks>
/// <para>
/// Operations use it one after the other. A completion that is on its way has it for itself, and so has a result that is not taken yet: a caller who begins another
/// operation without awaiting the one before gets another object (<see cref="IsFree"/>), and nothing is completed twice.
/// </para>
/// <para><see cref="Begin"/>, <see cref="NoteEnd"/> and <see cref="IsFree"/> are called under the gate of the operation's owner, <see cref="Complete"/> outside of it.</para>
/// </remarks>
internal abstract class PendingOperation<T> : IValueTaskSource<T>
{
    private const int OnItsWay = -1;

    private ManualResetValueTaskSourceCore<T> _core;
    private CancellationToken _token;
    private CancellationTokenRegistration _tokenRegistration;

    // The thread that completes the operation, OnItsWay before the completion has come to one, 0 otherwise.
    private int _completing;

    // Whether the result was asked for.
    private bool _isTaken;

    /// <summary>
    /// Whether another operation may use it: the user has taken the result of the one before, and the completing thread is through with it, or begins the other one
    /// itself, from within (the user's code comes last in a completion).
    /// </summary>
    internal bool IsFree => _isTaken && Volatile.Read(ref _completing) is var thread && (thread == 0 || thread == Environment.CurrentManagedThreadId);

    /// <summary>Whether the operation's token was cancelled.</summary>
    internal bool IsCancellationRequested => _token.IsCancellationRequested;

    /// <summary>Begins an operation that waits.</summary>
    internal ValueTask<T> Begin(CancellationToken cancellationToken)
    {
        _completing = 0;
        _isTaken = false;
        _core.Reset();
        _token = cancellationToken;
        if (cancellationToken.CanBeCanceled)
        {
            // Runs at once, on this thread and inside the gate (which is re-entrant), if the token was cancelled meanwhile.
            _tokenRegistration = cancellationToken.UnsafeRegister(static operation => ((PendingOperation<T>)operation!).OnTokenCancelled(), this);
        }

        return new ValueTask<T>(this, _core.Version);
    }

    /// <summary>The operation waits no longer. <see cref="Complete"/> has to follow, once, on any thread.</summary>
    internal void NoteEnd() => _completing = OnItsWay;

    /// <summary>Tells the user, whose code may run in here.</summary>
    internal void Complete(T result, Exception? failure)
    {
        // Outside the gate: the callback of the registration takes it.
        _tokenRegistration.Unregister();
        _tokenRegistration = default;
        var thread = Environment.CurrentManagedThreadId;
        _completing = thread;
        try
        {
            UserCalls.Complete(ref _core, result, failure);
        }
        finally
        {
            // Unless the next operation has begun in there.
            if (_completing == thread)
            {
                Volatile.Write(ref _completing, 0);
            }
        }
    }

    /// <summary>What the operation fails with after its token was cancelled.</summary>
    internal OperationCanceledException Cancellation() => new(_token);

    public T GetResult(short token)
    {
        _isTaken = true;
        return _core.GetResult(token);
    }

    public virtual ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

    public virtual void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, flags);

    /// <summary>The token was cancelled, of this operation or of an earlier one.</summary>
    protected abstract void OnTokenCancelled();
}
