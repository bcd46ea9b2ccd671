namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Counts events, and lets a test wait for the n-th.</summary>
internal sealed class Counter
{
    private readonly Lock _lock = new();
    private readonly List<(long Goal, TaskCompletionSource Reached)> _waiting = [];
    private long _value;

    internal long Value
    {
        get
        {
            lock (_lock)
            {
                return _value;
            }
        }
    }

    internal long Add(long count = 1)
    {
        lock (_lock)
        {
            _value += count;
            _waiting.FindAll(waiting => waiting.Goal <= _value).ForEach(static waiting => waiting.Reached.TrySetResult());
            return _value;
        }
    }

    internal Task ReachesAsync(long goal)
    {
        var reached = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_lock)
        {
            _waiting.Add((goal, reached));
            if (_value >= goal)
            {
                reached.SetResult();
            }
        }

        return reached.Task.Within();
    }
}
