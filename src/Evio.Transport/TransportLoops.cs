using System.Buffers;
using System.Diagnostics.Metrics;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Evio.Transport;

/// <summary>The event loops of a factory, and what everything on them is made with.</summary>
internal sealed class TransportLoops : IAsyncDisposable
{
    private readonly IMemoryPoolFactory<byte>? _memoryPoolFactory;
    private readonly TaskCompletionSource<Exception> _failure = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _failedLoops;

    internal TransportLoops(EvioTransportOptions options, ILogger logger, IMemoryPoolFactory<byte>? memoryPoolFactory, IMeterFactory? meterFactory)
    {
        Options = options;
        Logger = logger;
        _memoryPoolFactory = memoryPoolFactory;
        Group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = options.LoopCount,
            LoadBalance = options.LoadBalance,
            MeterFactory = meterFactory,
            Scheduling = options.Scheduling switch
            {
                EvioScheduling.Inline => LoopScheduling.Inline,
                EvioScheduling.Adaptive => LoopScheduling.Adaptive,
                _ => LoopScheduling.ThreadPool,
            },
            MaxLateThreads = options.MaxLateThreads,
            OnThreadsExhausted = limit => Log.ThreadsExhausted(logger, limit),
            OnThreadsRecovered = () => Log.ThreadsRecovered(logger),
            OnThreadStartFailed = reason => Log.ThreadStartFailed(logger, reason),
            OnLoopFailed = OnLoopFailed,
            OnUnhandledException = (loop, exception) => Log.LoopException(logger, loop.Index, exception),
        });
        UnreadInputWatches = [.. Group.Loops.Select(static loop => new UnreadInputWatch(loop))];
        Log.LoopsStarted(logger, Group.Loops.Count, options.LoadBalance, options.Scheduling);
    }

    internal EvioTransportOptions Options { get; }

    internal ILogger Logger { get; }

    internal EventLoopGroup Group { get; }

    /// <summary>Completes with the reason when the last loop has failed, and never otherwise.</summary>
    internal Task<Exception> Failure => _failure.Task;

    /// <summary>By loop.</summary>
    internal UnreadInputWatch[] UnreadInputWatches { get; }

    internal MemoryPool<byte> CreatePool() => _memoryPoolFactory?.Create(new MemoryPoolOptions { Owner = "evio" }) ?? MemoryPool<byte>.Shared;

    /// <summary>Ends the loops. One that a handler holds ends when the handler returns, for which nobody waits.</summary>
    public async ValueTask DisposeAsync()
    {
        var disposed = Group.DisposeAsync().AsTask();
        if (await Group.WaitUnlessHeldAsync(disposed, TimeSpan.Zero).ConfigureAwait(false))
        {
            await disposed.ConfigureAwait(false);
        }
    }

    private void OnLoopFailed(EventLoop loop, Exception reason)
    {
        // First, whatever the logger does.
        if (Interlocked.Increment(ref _failedLoops) == Group.Loops.Count)
        {
            _failure.SetResult(reason);
        }

        Log.LoopFailed(Logger, loop.Index, reason);
    }
}
