using System.Threading.Tasks.Sources;

namespace Evio.Transport.Pipes;

/// <summary>The awaitable of an operation that has to wait: a read, a flush, an accept.</summary>
/// <remarks>
/// <para>
/// One object serves operations one after the other. It is in use while a completion is under way, and while a result is not taken yet. A
/// caller that begins another operation without awaiting the one before gets another object (<see cref="IsFree"/>), so that nothing is
/// completed twice.
/// </para>
/// <para>
/// <see cref="Begin"/>, <see cref="NoteEnd"/> and <see cref="IsFree"/> are called under the gate of the operation's owner,
/// <see cref="Complete"/> outside of it.
/// </para>
/// </remarks>
internal abstract class PendingOperation<T> : IValueTaskSource<T>
{
    private const int OnItsWay = -1;

    private ManualResetValueTaskSourceCore<T> _core;
    private CancellationToken _token;
    private CancellationTokenRegistration _tokenRegistration;

    // The thread that completes the operation; OnItsWay before the completion has come to a thread; 0 otherwise.
    private int _completing;

    // Whether the result was taken.
    private bool _isTaken;

    /// <summary>
    /// Whether another operation may use this object. The caller has taken the result of the one before. And the completing thread has
    /// finished, or begins the other operation itself, from within: user code comes last in a completion.
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
            // If the token was cancelled meanwhile, the callback runs at once, on this thread and inside the gate (which is re-entrant).
            _tokenRegistration = cancellationToken.UnsafeRegister(static operation => ((PendingOperation<T>)operation!).OnTokenCancelled(), this);
        }

        return new ValueTask<T>(this, _core.Version);
    }

    /// <summary>Ends the wait. <see cref="Complete"/> has to follow, once, on any thread.</summary>
    internal void NoteEnd() => _completing = OnItsWay;

    /// <summary>Completes the operation. User code may run in here.</summary>
    internal void Complete(T result, Exception? failure)
    {
        // Outside the gate, because the callback of the registration enters it.
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
            // If the next operation has begun in there, the field belongs to it.
            if (_completing == thread)
            {
                Volatile.Write(ref _completing, 0);
            }
        }
    }

    /// <summary>The exception of an operation whose token was cancelled.</summary>
    internal OperationCanceledException Cancellation() => new(_token);

    public T GetResult(short token)
    {
        _isTaken = true;
        return _core.GetResult(token);
    }

    public virtual ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

    public virtual void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, flags);

    /// <summary>The token of this operation, or of an earlier one, was cancelled.</summary>
    protected abstract void OnTokenCancelled();
}
