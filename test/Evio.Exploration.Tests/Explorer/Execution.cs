using System.Diagnostics;
using System.Text;

namespace Exploration;

/// <summary>
/// One run of a scenario. Its actors have threads of their own, of which exactly one runs at any time: at each of its steps (an operation on what
/// threads share, or a system call) the schedule says who takes the next one.
/// </summary>
internal sealed class Execution(ISchedule schedule)
{
    /// <summary>More steps than any execution that comes to an end has.</summary>
    private const int MaxSteps = 20_000;

    /// <summary>A turn takes microseconds, on a machine that is busy with other things perhaps a second.</summary>
    private static readonly TimeSpan TurnLimit = TimeSpan.FromMinutes(1);

    private readonly List<Actor> _actors = [];
    private readonly List<Actor> _enabled = [];
    private readonly List<(Actor Actor, string What)> _trace = [];
    private readonly SemaphoreSlim _ended = new(0);
    private Actor _main = null!;
    private bool _exploring;
    private string? _failure;
    private int _lastTrace = -1;
    private long _now = Stopwatch.Frequency;

    internal static Execution Current => Actor.Current.Execution;

    /// <summary>The time, as a stamp of <see cref="Stopwatch"/>. It passes only when nobody can do anything else.</summary>
    internal long Now => _now;

    internal Descriptors Descriptors { get; } = new();

    /// <summary>Runs a scenario from its beginning to its end.</summary>
    /// <returns>What went wrong; null if nothing did.</returns>
    internal string? Run(Action<Execution> scenario)
    {
        _main = Make("main", isAwaited: false, () => scenario(this), isThread: false);
        _main.GiveTurn();
        while (!_ended.Wait(TurnLimit))
        {
            if (_trace.Count == _lastTrace)
            {
                Volatile.Write(ref _failure, $"{Last()?.Name} does not come to its next step: it waits for something outside of the exploration.");
                break;
            }

            _lastTrace = _trace.Count;
        }

        if (_failure is null)
        {
            Descriptors.End();
        }

        return _failure;
    }

    private Actor? Last() => _trace.Count == 0 ? null : _trace[^1].Actor;

    // ---- For scenarios ----

    /// <summary>Adds an actor, who begins with <see cref="Explore"/>, which waits for him.</summary>
    internal void Add(string name, Action action) => Make(name, isAwaited: true, action, isThread: false);

    /// <summary>The same for one who uses what is asynchronous. He goes on wherever the product runs his continuations.</summary>
    internal void Add(string name, Func<Task> action) => Add(name, () =>
    {
        var task = action();
        WaitFor($"the end of {name}", task);
    });

    /// <summary>
    /// Lets the actors loose, and returns when all are done and nobody has anything to do. What is before this call and after it is not explored: it has one schedule.
    /// </summary>
    internal void Explore()
    {
        _exploring = true;
        Block("explores", () => _actors.TrueForAll(static actor => actor.IsDone || !actor.IsAwaited));
        _exploring = false;
    }

    /// <summary>Waits for a task, as an actor.</summary>
    internal static void WaitFor(string what, Task task)
    {
        Current.Block($"waits for {what}", () => task.IsCompleted);
        task.GetAwaiter().GetResult();
    }

    internal static void WaitFor(string what, ValueTask task) => WaitFor(what, task.AsTask());

    internal static void WaitFor(string what, Func<bool> condition) => Current.Block($"waits for {what}", condition);

    /// <summary>Waits until time has passed, which it does when nobody can do anything else.</summary>
    /// <param name="time">How much of it.</param>
    /// <param name="unless">Ends the wait.</param>
    internal static void WaitForTime(TimeSpan time, Func<bool>? unless = null) =>
        _ = Current.Block("waits for time to pass", unless ?? (static () => false), Current.After(time));

    /// <summary>A step of the scenario's own.</summary>
    internal static void Step(string what) => Current.Point(what);

    /// <summary>Whether the system starts no thread at the moment.</summary>
    internal bool RefusesThreads { get; set; }

    /// <summary>How often somebody took a step of this name so far.</summary>
    internal int CountOf(string what) => _trace.Count(step => step.What == what);

    /// <summary>Lets others run between the call that returned a task and the await of it.</summary>
    internal static ValueTask<T> Later<T>(ValueTask<T> task)
    {
        Step("awaits");
        return task;
    }

    // ---- For the replacements ----

    /// <summary>A step: the schedule says who goes on.</summary>
    internal void Point(string what) => Switch(Actor.Current, what);

    /// <summary>A step that needs a condition to hold.</summary>
    /// <returns>False when the time was up first.</returns>
    internal bool Block(string what, Func<bool> until, long deadline = long.MaxValue)
    {
        var actor = Actor.Current;
        actor.Until = until;
        actor.Deadline = deadline;
        Switch(actor, what);
        var isTimeUp = actor.Deadline < 0;
        actor.Until = null;
        actor.Deadline = long.MaxValue;
        return !isTimeUp;
    }

    /// <summary>A step after a release, where the next operation is not one of the exploration's.</summary>
    internal void AfterRelease(string what)
    {
        // While the scenario is set up, so that whoever waits for what was released comes to his turn before main blocks its thread for him.
        if (!_exploring && Actor.Current == _main)
        {
            Point(what);
        }
    }

    internal Actor Spawn(string name, Action action, bool isThread) => Make(name, isAwaited: false, action, isThread);

    internal long After(TimeSpan time) => time < TimeSpan.Zero ? long.MaxValue : _now + (long)Math.Ceiling(time.TotalSeconds * Stopwatch.Frequency);

    /// <summary>Ends the execution with a failure. Does not return: the actors stay where they are.</summary>
    internal void Fail(string reason)
    {
        _failure ??= reason;
        _ended.Release();
        new SemaphoreSlim(0).Wait();
    }

    /// <summary>Runs an actor's part, on its thread, in its first turn.</summary>
    internal void Run(Actor actor, Action action, Action release)
    {
        try
        {
            action();
            if (actor == _main)
            {
                // Everybody else comes to his end first.
                Switch(actor, "ends");
            }
        }
        catch (Exception exception)
        {
            Fail($"{actor.Name} failed: {exception}");
        }

        actor.IsDone = true;
        _trace.Add((actor, "ends"));
        if (actor == _main)
        {
            if (_actors.Find(static other => !other.IsDone) is { } left)
            {
                Fail($"{left.Name} was left behind, which {left.Next}.");
            }

            release();
            _ended.Release();
            return;
        }

        var next = Choose(actor);
        release();
        next.GiveTurn();
    }

    /// <summary>The last steps, the latest one at the end.</summary>
    internal string Trace(int count)
    {
        var text = new StringBuilder();
        foreach (var (actor, what) in _trace.TakeLast(count))
        {
            text.Append("  ").Append(actor.Name).Append(": ").AppendLine(what);
        }

        foreach (var actor in _actors.Where(static actor => !actor.IsDone))
        {
            text.Append("  ").Append(actor.Name).Append(" is at: ").AppendLine(actor.Next);
        }

        return text.ToString();
    }

    private Actor Make(string name, bool isAwaited, Action action, bool isThread)
    {
        var actor = new Actor(this, _actors.Count, name) { IsAwaited = isAwaited, IsThread = isThread };
        if (isAwaited)
        {
            // Not while the scenario is set up.
            actor.Until = () => _exploring;
        }

        _actors.Add(actor);
        actor.Start(
            () =>
            {
                actor.Until = null;
                action();
            });
        return actor;
    }

    private void Switch(Actor actor, string what)
    {
        actor.Next = what;
        var next = Choose(actor);
        if (next != actor)
        {
            next.GiveTurn();
            actor.AwaitTurn();
        }

        _trace.Add((actor, what));
        if (_trace.Count == MaxSteps)
        {
            Fail($"It does not come to an end: {MaxSteps} steps were made.");
        }
    }

    private Actor Choose(Actor current)
    {
        // Who is at it first, then the others in their order; the scenario itself when nobody else has anything to do.
        _enabled.Clear();
        var isCurrentEnabled = current != _main && current.IsEnabled;
        if (isCurrentEnabled)
        {
            _enabled.Add(current);
        }

        for (var i = 1; i < _actors.Count; i++)
        {
            var actor = _actors[(current.Id + i) % _actors.Count];
            if (actor != current && actor != _main && actor.IsEnabled)
            {
                _enabled.Add(actor);
            }
        }

        if (_enabled.Count == 0)
        {
            return _main.IsEnabled ? _main : PassTime();
        }

        return _exploring && _enabled.Count > 1 ? _enabled[Choose(isCurrentEnabled)] : _enabled[0];
    }

    private int Choose(bool isPreemption)
    {
        try
        {
            return schedule.Choose(_enabled.Count, isPreemption);
        }
        catch (InvalidOperationException exception)
        {
            Fail(exception.Message);
            throw;
        }
    }

    /// <summary>Nobody can do anything: so time passes until somebody's time is up.</summary>
    private Actor PassTime()
    {
        Actor? first = null;
        foreach (var actor in _actors)
        {
            if (!actor.IsDone && actor.Deadline >= 0 && actor.Deadline < (first?.Deadline ?? long.MaxValue))
            {
                first = actor;
            }
        }

        if (first is null)
        {
            Fail("Nobody can go on: a wake-up was lost, or it is a deadlock.");
        }

        _now = Math.Max(_now, first!.Deadline);
        first.Deadline = -1;
        first.Until = null;
        return first;
    }
}
