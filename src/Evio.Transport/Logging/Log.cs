using System.Net;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Evio.Transport;

/// <summary>
/// The log messages of the transport, in the category <see cref="Category"/>. Events that the framework's Sockets transport has as well
/// bear its ids and names.
/// </summary>
internal static partial class Log
{
    internal const string Category = "Evio.Transport";

    internal static void ConnectionReadFin(ILogger logger, ConnectionContext connection)
    {
        if (logger.IsEnabled(LogLevel.Debug))
        {
            ConnectionReadFinCore(logger, connection.ConnectionId);
        }
    }

    internal static void ConnectionWriteFin(ILogger logger, ConnectionContext connection, string reason)
    {
        if (logger.IsEnabled(LogLevel.Debug))
        {
            ConnectionWriteFinCore(logger, connection.ConnectionId, reason);
        }
    }

    internal static void ConnectionWriteRst(ILogger logger, ConnectionContext connection, string reason)
    {
        if (logger.IsEnabled(LogLevel.Debug))
        {
            ConnectionWriteRstCore(logger, connection.ConnectionId, reason);
        }
    }

    internal static void ConnectionError(ILogger logger, ConnectionContext connection, Exception exception)
    {
        if (logger.IsEnabled(LogLevel.Debug))
        {
            ConnectionErrorCore(logger, connection.ConnectionId, exception);
        }
    }

    internal static void ConnectionReset(ILogger logger, ConnectionContext connection)
    {
        if (logger.IsEnabled(LogLevel.Debug))
        {
            ConnectionResetCore(logger, connection.ConnectionId);
        }
    }

    internal static void ConnectionPause(ILogger logger, ConnectionContext connection)
    {
        if (logger.IsEnabled(LogLevel.Debug))
        {
            ConnectionPauseCore(logger, connection.ConnectionId);
        }
    }

    internal static void ConnectionResume(ILogger logger, ConnectionContext connection)
    {
        if (logger.IsEnabled(LogLevel.Debug))
        {
            ConnectionResumeCore(logger, connection.ConnectionId);
        }
    }

    internal static void ConnectionClosedCallbackFailed(ILogger logger, ConnectionContext connection, Exception exception) =>
        ConnectionClosedCallbackFailedCore(logger, connection.ConnectionId, exception);

    [LoggerMessage(4, LogLevel.Debug, @"Connection id ""{ConnectionId}"" paused.", EventName = "ConnectionPause", SkipEnabledCheck = true)]
    private static partial void ConnectionPauseCore(ILogger logger, string connectionId);

    [LoggerMessage(5, LogLevel.Debug, @"Connection id ""{ConnectionId}"" resumed.", EventName = "ConnectionResume", SkipEnabledCheck = true)]
    private static partial void ConnectionResumeCore(ILogger logger, string connectionId);

    [LoggerMessage(6, LogLevel.Debug, @"Connection id ""{ConnectionId}"" received FIN.", EventName = "ConnectionReadFin", SkipEnabledCheck = true)]
    private static partial void ConnectionReadFinCore(ILogger logger, string connectionId);

    [LoggerMessage(7, LogLevel.Debug, @"Connection id ""{ConnectionId}"" sending FIN because: ""{Reason}""", EventName = "ConnectionWriteFin", SkipEnabledCheck = true)]
    private static partial void ConnectionWriteFinCore(ILogger logger, string connectionId, string reason);

    [LoggerMessage(8, LogLevel.Debug, @"Connection id ""{ConnectionId}"" sending RST because: ""{Reason}""", EventName = "ConnectionWriteRst", SkipEnabledCheck = true)]
    private static partial void ConnectionWriteRstCore(ILogger logger, string connectionId, string reason);

    [LoggerMessage(14, LogLevel.Debug, @"Connection id ""{ConnectionId}"" communication error.", EventName = "ConnectionError", SkipEnabledCheck = true)]
    private static partial void ConnectionErrorCore(ILogger logger, string connectionId, Exception exception);

    [LoggerMessage(19, LogLevel.Debug, @"Connection id ""{ConnectionId}"" reset.", EventName = "ConnectionReset", SkipEnabledCheck = true)]
    private static partial void ConnectionResetCore(ILogger logger, string connectionId);

    // From 100 on: events that the Sockets transport does not have.

    [LoggerMessage(100, LogLevel.Error, @"Connection id ""{ConnectionId}"": a callback of ConnectionClosed failed.", EventName = "ConnectionClosedCallbackFailed")]
    private static partial void ConnectionClosedCallbackFailedCore(ILogger logger, string connectionId, Exception exception);

    [LoggerMessage(101, LogLevel.Warning, "Event loops need epoll or kqueue (a 64-bit process on Linux, macOS or FreeBSD), which this system does not have. Other registered transports serve the end points.", EventName = "NotSupported")]
    internal static partial void NotSupported(ILogger logger);

    [LoggerMessage(102, LogLevel.Error, "{EndPoint} cannot accept connections at the moment; they wait, and accepting is tried again until it works.", EventName = "AcceptFailing")]
    internal static partial void AcceptFailing(ILogger logger, EndPoint endPoint, Exception exception);

    [LoggerMessage(103, LogLevel.Information, "{EndPoint} accepts connections again.", EventName = "AcceptRecovered")]
    internal static partial void AcceptRecovered(ILogger logger, EndPoint endPoint);

    [LoggerMessage(104, LogLevel.Error, "Unhandled exception on event loop {Loop}.", EventName = "LoopException")]
    internal static partial void LoopException(ILogger logger, int loop, Exception exception);

    [LoggerMessage(105, LogLevel.Debug, "{LoopCount} event loops started: {LoadBalance}, {Scheduling}.", EventName = "LoopsStarted")]
    internal static partial void LoopsStarted(ILogger logger, int loopCount, LoadBalance loadBalance, LoopScheduling scheduling);

    [LoggerMessage(106, LogLevel.Warning, "{Limit} threads are in application code that blocks (MaxBlockedThreads). The thread pool runs application code until half of them are back.", EventName = "ThreadsSaturated")]
    internal static partial void ThreadsSaturated(ILogger logger, int limit);

    [LoggerMessage(107, LogLevel.Information, "The event loops run application code again.", EventName = "ThreadsRecovered")]
    internal static partial void ThreadsRecovered(ILogger logger);

    [LoggerMessage(108, LogLevel.Warning, "The system starts no further thread. The thread pool runs application code until it does; it is asked again until then.", EventName = "ThreadStartFailed")]
    internal static partial void ThreadStartFailed(ILogger logger, Exception exception);

    [LoggerMessage(109, LogLevel.Error, "Event loop {Loop} has failed and ended. Its connections are closed; new ones go to the other loops, as long as there are any.", EventName = "LoopFailed")]
    internal static partial void LoopFailed(ILogger logger, int loop, Exception exception);

    [LoggerMessage(110, LogLevel.Critical, "The last event loop has failed. Nothing can be accepted any more, and the application is stopped.", EventName = "AllLoopsFailed")]
    internal static partial void AllLoopsFailed(ILogger logger, Exception exception);

    [LoggerMessage(111, LogLevel.Warning, "{Count} more messages {Message} were left out in the last minute.", EventName = "MessagesLeftOut")]
    internal static partial void MessagesLeftOut(ILogger logger, int count, string message);
}
