using System.Collections.Concurrent;

namespace Exploration;

/// <summary>Somebody who acts in an execution: one of the scenario's actors, a thread of the product's, or a work item of the thread pool's.</summary>
internal sealed class Actor(Execution execution, int id, string name)
{
    [ThreadStatic]
    private static Actor? OnThisThread;

    // Threads are reused from one execution to the next. Those of the product's Thread class have a stock of their own, because what it keeps per
    // thread must not be met by a work item.
    private static readonly ConcurrentStack<Worker> Threads = new();
    private static readonly ConcurrentStack<Worker> PoolThreads = new();

    private readonly SemaphoreSlim _turn = new(0);

    /// <summary>The actor that the calling thread runs.</summary>
    internal static Actor Current => OnThisThread
        ?? throw new InvalidOperationException("The product runs on a thread that the exploration does not control.");

    internal Execution Execution => execution;

    internal int Id => id;

    internal string Name => name;

    internal bool IsDone { get; set; }

    /// <summary>Whether the exploration goes on until this one is done.</summary>
    internal bool IsAwaited { get; init; }

    /// <summary>Whether it is a thread of the product's.</summary>
    internal bool IsThread { get; init; }

    /// <summary>What it waits for; null when it only waits for its turn.</summary>
    internal Func<bool>? Until { get; set; }

    /// <summary>Until when it waits for that, in the execution's time.</summary>
    internal long Deadline { get; set; } = long.MaxValue;

    /// <summary>What it does with its next turn.</summary>
    internal string Next { get; set; } = "begins";

    internal bool IsEnabled => !IsDone && (Until is null || Until());

    internal void Start(Action action)
    {
        var stock = IsThread ? Threads : PoolThreads;
        var worker = stock.TryPop(out var spare) ? spare : new Worker();
        worker.Run(() =>
        {
            OnThisThread = this;
            AwaitTurn();
            execution.Run(this, action, () =>
            {
                OnThisThread = null;
                stock.Push(worker);
            });
        });
    }

    internal void GiveTurn() => _turn.Release();

    internal void AwaitTurn() => _turn.Wait();

    private sealed class Worker
    {
        private readonly BlockingCollection<Action> _jobs = [];

        internal Worker() => new Thread(Work) { IsBackground = true, Name = "Exploration" }.Start();

        internal void Run(Action job) => _jobs.Add(job);

        private void Work()
        {
            foreach (var job in _jobs.GetConsumingEnumerable())
            {
                job();
            }
        }
    }
}
