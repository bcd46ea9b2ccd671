using System.Runtime.CompilerServices;
using Exploration;

// The lock statement knows these two by their full names, and takes those of the compilation before those of the framework.
namespace System.Threading;

public sealed class Lock
{
    private readonly Ownership _ownership = new();

    public Scope EnterScope()
    {
        Enter();
        return new Scope(this);
    }

    public void Enter() => _ownership.Enter("enters a lock");

    public void Exit() => _ownership.Exit("leaves a lock");

    public readonly ref struct Scope
    {
        private readonly Lock _lock;

        internal Scope(Lock owner) => _lock = owner;

        public void Dispose() => _lock.Exit();
    }
}

public static class Monitor
{
    private static readonly ConditionalWeakTable<object, State> States = [];

    public static void Enter(object guard, ref bool lockTaken)
    {
        States.GetOrCreateValue(guard).Enter("enters a monitor");
        lockTaken = true;
    }

    public static void Exit(object guard) => States.GetOrCreateValue(guard).Exit();

    public static bool Wait(object guard) => Wait(guard, Timeout.InfiniteTimeSpan);

    public static bool Wait(object guard, TimeSpan timeout) => States.GetOrCreateValue(guard).Wait(timeout);

    public static void Pulse(object guard) => States.GetOrCreateValue(guard).Pulse(1);

    public static void PulseAll(object guard) => States.GetOrCreateValue(guard).Pulse(int.MaxValue);

    private sealed class State
    {
        private readonly Ownership _ownership = new();
        private readonly List<Actor> _waiting = [];

        internal void Enter(string what) => _ownership.Enter(what);

        internal void Exit() => _ownership.Exit("leaves a monitor");

        internal bool Wait(TimeSpan timeout)
        {
            var depth = _ownership.GiveUp();
            var actor = Actor.Current;
            _waiting.Add(actor);
            var pulsed = actor.Execution.Block("waits on a monitor", () => !_waiting.Contains(actor), actor.Execution.After(timeout));
            _waiting.Remove(actor);
            _ownership.Enter("comes back from waiting on a monitor", depth);
            return pulsed;
        }

        internal void Pulse(int count)
        {
            _ownership.AssertHeld();
            _waiting.RemoveRange(0, Math.Min(count, _waiting.Count));
        }
    }
}

/// <summary>Who holds a lock, and how many times.</summary>
internal sealed class Ownership
{
    private readonly Func<bool> _isFree;
    private Actor? _owner;
    private int _depth;

    internal Ownership() => _isFree = () => _owner is null;

    internal void Enter(string what, int times = 1)
    {
        var actor = Actor.Current;
        if (_owner != actor)
        {
            _ = actor.Execution.Block(what, _isFree);
            _owner = actor;
        }

        _depth += times;
    }

    internal void Exit(string what)
    {
        AssertHeld();
        if (--_depth == 0)
        {
            _owner = null;
            Execution.Current.AfterRelease(what);
        }
    }

    /// <summary>Gives it up however many times it is held, without a step.</summary>
    /// <returns>How many times that was.</returns>
    internal int GiveUp()
    {
        AssertHeld();
        var depth = _depth;
        _depth = 0;
        _owner = null;
        return depth;
    }

    internal void AssertHeld()
    {
        if (_owner != Actor.Current)
        {
            throw new SynchronizationLockException();
        }
    }
}
