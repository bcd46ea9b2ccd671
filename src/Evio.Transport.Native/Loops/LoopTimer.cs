namespace Evio.Transport.Native;

/// <summary>A call that a loop makes once, at or after a moment; made by <see cref="EventLoop.Schedule"/>.</summary>
public sealed class LoopTimer
{
    private Action<object?>? _callback;
    private readonly object? _state;

    internal LoopTimer(Action<object?> callback, object? state)
    {
        _callback = callback;
        _state = state;
    }

    /// <summary>Whether the call is still to come.</summary>
    public bool IsPending => _callback is not null;

    /// <summary>Calls the timer off. To be used on the timer's loop; without effect when the call was made or called off before.</summary>
    public void Cancel() => _callback = null;

    internal void Fire()
    {
        var callback = _callback;
        _callback = null;
        callback?.Invoke(_state);
    }
}
