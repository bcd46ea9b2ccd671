using System.Runtime.CompilerServices;
using Exploration;

// The lock statement knows these two by their full names, and takes those of the compilation before those of the framework.
namespace System.Threading;

public sealed class Lock
{
    private readonly Func<bool> _isFree;
    private Actor? _owner;
    private int _depth;

    public Lock() => _isFree = () => _owner is null;

    public Scope EnterScope()
    {
        Enter();
        return new Scope(this);
    }

    public void Enter()
    {
        var actor = Actor.Current;
        if (_owner != actor)
        {
            _ = actor.Execution.Block("enters a lock", _isFree);
            _owner = actor;
        }

        _depth++;
    }

    public void Exit()
    {
        if (_owner != Actor.Current)
        {
            throw new SynchronizationLockException();
        }

        if (--_depth == 0)
        {
            _owner = null;
            Execution.Current.AfterRelease("leaves a lock");
        }
    }

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
        private readonly Func<bool> _isFree;
        private readonly List<Actor> _waiting = [];
        private Actor? _owner;
        private int _depth;

        public State() => _isFree = () => _owner is null;

        internal void Enter(string what)
        {
            var actor = Actor.Current;
            if (_owner != actor)
            {
                _ = actor.Execution.Block(what, _isFree);
                _owner = actor;
            }

            _depth++;
        }

        internal void Exit()
        {
            AssertOwned();
            if (--_depth == 0)
            {
                _owner = null;
                Execution.Current.AfterRelease("leaves a monitor");
            }
        }

        internal bool Wait(TimeSpan timeout)
        {
            AssertOwned();
            var actor = Actor.Current;
            var depth = _depth;
            _waiting.Add(actor);
            _depth = 0;
            _owner = null;
            var pulsed = actor.Execution.Block("waits on a monitor", () => !_waiting.Contains(actor), actor.Execution.After(timeout));
            _waiting.Remove(actor);
            Enter("comes back from waiting on a monitor");
            _depth = depth;
            return pulsed;
        }

        internal void Pulse(int count)
        {
            AssertOwned();
            _waiting.RemoveRange(0, Math.Min(count, _waiting.Count));
        }

        private void AssertOwned()
        {
            if (_owner != Actor.Current)
            {
                throw new SynchronizationLockException();
            }
        }
    }
}
