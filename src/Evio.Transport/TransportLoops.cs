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
    private readonly LogLimiter _exceptions;

    internal TransportLoops(EvioTransportOptions options, ILogger logger, IMemoryPoolFactory<byte>? memoryPoolFactory, IMeterFactory? meterFactory)
    {
        Options = options;
        Logger = logger;
        _memoryPoolFactory = memoryPoolFactory;
        _exceptions = CreateLimiter("LoopException");
        ClosedCallbackFailures = CreateLimiter("ConnectionClosedCallbackFailed");
        var threads = CreateEpisodes<int>(
            limit => Log.ThreadsExhausted(logger, limit), () => Log.ThreadsRecovered(logger), "ThreadsExhausted");
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
            OnThreadsExhausted = threads.Begin,
            OnThreadsRecovered = threads.End,
            OnUnhandledException = OnUnhandledException,
        });
        UnreadInputWatches = [.. Group.Loops.Select(static loop => new UnreadInputWatch(loop))];
        Log.LoopsStarted(logger, Group.Loops.Count, options.LoadBalance, options.Scheduling);
    }

    internal EvioTransportOptions Options { get; }

    internal ILogger Logger { get; }

    internal EventLoopGroup Group { get; }

    /// <summary>For what the application's callbacks of ConnectionClosed throw.</summary>
    internal LogLimiter ClosedCallbackFailures { get; }

    /// <summary>By loop.</summary>
    internal UnreadInputWatch[] UnreadInputWatches { get; }

    internal MemoryPool<byte> CreatePool() => _memoryPoolFactory?.Create(new MemoryPoolOptions { Owner = "evio" }) ?? MemoryPool<byte>.Shared;

    /// <summary>Makes a log of episodes that clients can cause.</summary>
    /// <param name="logBegin">Logs the beginning.</param>
    /// <param name="logEnd">Logs the end.</param>
    /// <param name="message">The name of the beginning's event.</param>
    internal EpisodeLog<T> CreateEpisodes<T>(Action<T> logBegin, Action logEnd, string message) =>
        new(TrySchedule, logBegin, logEnd, count => Log.MessagesLeftOut(Logger, count, message));

    private LogLimiter CreateLimiter(string message) => new(TrySchedule, count => Log.MessagesLeftOut(Logger, count, message));

    private void OnUnhandledException(EventLoop loop, Exception exception)
    {
        if (_exceptions.TryPass())
        {
            Log.LoopException(Logger, loop.Index, exception);
        }
    }

    private bool TrySchedule(TimeSpan delay, Action call)
    {
        // Null until the group's constructor has returned. A loop that has ended takes no call.
        return Group is { } group && group.Loops.Any(loop => loop.TryPost(_ => loop.Schedule(delay, static call => ((Action)call!)(), call), null));
    }

    public ValueTask DisposeAsync() => Group.DisposeAsync();
}
