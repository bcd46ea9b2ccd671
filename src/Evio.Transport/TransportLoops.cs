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
            OnUnhandledException = (loop, exception) => Log.LoopException(logger, loop.Index, exception),
        });
        Dispatchers = options.Scheduling == EvioScheduling.ThreadPool ? [.. Group.Loops.Select(static loop => new PoolDispatcher(loop))] : null;
        UnreadInputWatches = [.. Group.Loops.Select(static loop => new UnreadInputWatch(loop))];
        Log.LoopsStarted(logger, Group.Loops.Count, options.LoadBalance, options.Scheduling);
    }

    internal EvioTransportOptions Options { get; }

    internal ILogger Logger { get; }

    internal EventLoopGroup Group { get; }

    /// <summary>What runs the application, by loop; <see langword="null"/> when the loops' own threads do.</summary>
    internal PoolDispatcher[]? Dispatchers { get; }

    /// <summary>By loop.</summary>
    internal UnreadInputWatch[] UnreadInputWatches { get; }

    internal MemoryPool<byte> CreatePool() => _memoryPoolFactory?.Create(new MemoryPoolOptions { Owner = "evio" }) ?? MemoryPool<byte>.Shared;

    public ValueTask DisposeAsync() => Group.DisposeAsync();
}
