using System.Diagnostics;
using Microsoft.Extensions.Logging;

namespace Evio.Transport;

/// <summary>
/// A logger that never throws. Loggers are user code, called from loops and in the middle of a connection's end. A logger that fails
/// (without descriptors, for example) is no failure of the server. The first exception is written to <see cref="Trace"/>, the others are
/// ignored.
/// </summary>
internal sealed class GuardedLogger(ILogger logger) : ILogger
{
    private int _failed;

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel)
    {
        try
        {
            return logger.IsEnabled(logLevel);
        }
        catch (Exception exception)
        {
            ReportOnce(exception);
            return false;
        }
    }

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        try
        {
            logger.Log(logLevel, eventId, state, exception, formatter);
        }
        catch (Exception failure)
        {
            ReportOnce(failure);
        }
    }

    private void ReportOnce(Exception exception)
    {
        if (Interlocked.Exchange(ref _failed, 1) != 0)
        {
            return;
        }

        try
        {
            Trace.TraceError("A logger has thrown: {0}", exception);
        }
        catch (Exception)
        {
            // A listener of the trace throws as well, and there is no other place for the report.
        }
    }
}
