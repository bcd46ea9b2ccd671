using System.Buffers;
using System.Diagnostics.Metrics;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Evio.Transport;

/// <summary>The event loops of a factory, and what its listeners and connections share.</summary>
internal sealed class TransportLoops : IAsyncDisposable
{
    private readonly IMemoryPoolFactory<byte>? _memoryPoolFactory;
    private readonly CancellationTokenSource _failed = new();
    private readonly LogLimiter _exceptions;
    private readonly LogLimiter _threadStartFailures;
    private int _failedLoops;

    internal TransportLoops(EvioTransportOptions options, ILogger logger, IMemoryPoolFactory<byte>? memoryPoolFactory, IMeterFactory? meterFactory)
    {
        Options = options;
        Logger = logger;
        _memoryPoolFactory = memoryPoolFactory;
        _exceptions = CreateLimiter("LoopException");
        _threadStartFailures = CreateLimiter("ThreadStartFailed");
        ClosedCallbackFailures = CreateLimiter("ConnectionClosedCallbackFailed");
        var threads = CreateEpisodes<int>(
            limit => Log.ThreadsSaturated(logger, limit), () => Log.ThreadsRecovered(logger), "ThreadsSaturated");
        Group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = options.LoopCount,
            LoadBalance = options.LoadBalance,
            MeterFactory = meterFactory,
            Scheduling = options.Scheduling,
            LoopAffinity = options.LoopAffinity,
            MaxBlockedThreads = options.MaxBlockedThreads,
            OnThreadsSaturated = threads.Begin,
            OnThreadsRecovered = threads.End,
            OnThreadStartFailed = OnThreadStartFailed,
            OnLoopFailed = OnLoopFailed,
            OnUnhandledException = OnUnhandledException,
        });
        UnreadInputMonitors = [.. Group.Loops.Select(static loop => new UnreadInputMonitor(loop))];
        Log.LoopsStarted(logger, Group.Loops.Count, options.LoadBalance, options.Scheduling);
    }

    internal EvioTransportOptions Options { get; }

    internal ILogger Logger { get; }

    internal EventLoopGroup Group { get; }

    /// <summary>Cancelled, on the thread pool, when the last loop has failed.</summary>
    internal CancellationToken Failed => _failed.Token;

    /// <summary>Why the last loop has failed, if it has.</summary>
    internal Exception? Failure { get; private set; }

    /// <summary>Limits the log of exceptions that the application's callbacks of ConnectionClosed throw.</summary>
    internal LogLimiter ClosedCallbackFailures { get; }

    /// <summary>The unread-input monitors, by the index of the loop.</summary>
    internal UnreadInputMonitor[] UnreadInputMonitors { get; }

    internal MemoryPool<byte> CreatePool() => _memoryPoolFactory?.Create(new MemoryPoolOptions { Owner = "evio" }) ?? MemoryPool<byte>.Shared;

    /// <summary>Ends the loops. A loop that a handler holds ends when the handler returns; this does not wait for that.</summary>
    public ValueTask DisposeAsync() => WaitUnlessHeldAsync(Group.DisposeAsync().AsTask());

    /// <summary>Waits for work of the loops, unless a handler holds one of them: that work is done when the handler returns.</summary>
    internal async ValueTask WaitUnlessHeldAsync(Task work)
    {
        if (await Group.WaitUnlessHeldAsync(work, TimeSpan.Zero).ConfigureAwait(false))
        {
            await work.ConfigureAwait(false);
        }
    }

    private void OnLoopFailed(EventLoop loop, Exception reason)
    {
        // Before the log message, whatever the logger does.
        if (Interlocked.Increment(ref _failedLoops) == Group.Loops.Count)
        {
            Failure = reason;
            _ = _failed.CancelAsync();
        }

        Log.LoopFailed(Logger, loop.Index, reason);
    }

    /// <summary>Makes a log of episodes that clients can cause.</summary>
    /// <param name="logBegin">Logs the beginning.</param>
    /// <param name="logEnd">Logs the end.</param>
    /// <param name="message">The name of the beginning's event.</param>
    internal EpisodeLog<T> CreateEpisodes<T>(Action<T> logBegin, Action logEnd, string message) =>
        new(TrySchedule, logBegin, logEnd, count => Log.MessagesLeftOut(Logger, count, message));

    private LogLimiter CreateLimiter(string message) => new(TrySchedule, count => Log.MessagesLeftOut(Logger, count, message));

    private void OnThreadStartFailed(Exception reason)
    {
        if (_threadStartFailures.TryPass())
        {
            Log.ThreadStartFailed(Logger, reason);
        }
    }

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
}
