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
            OnUnhandledException = (loop, exception) => Log.LoopException(logger, loop.Index, exception),
        });
        UnreadInputWatches = [.. Group.Loops.Select(static loop => new UnreadInputWatch(loop))];
        Log.LoopsStarted(logger, Group.Loops.Count, options.LoadBalance, options.Scheduling);
    }

    internal EvioTransportOptions Options { get; }

    internal ILogger Logger { get; }

    internal EventLoopGroup Group { get; }

    /// <summary>By loop.</summary>
    internal UnreadInputWatch[] UnreadInputWatches { get; }

    internal MemoryPool<byte> CreatePool() => _memoryPoolFactory?.Create(new MemoryPoolOptions { Owner = "evio" }) ?? MemoryPool<byte>.Shared;

    public ValueTask DisposeAsync() => Group.DisposeAsync();
}
