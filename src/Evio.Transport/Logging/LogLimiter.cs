namespace Evio.Transport;

/// <summary>
/// Lets one message of a kind pass, counts the others of the next minute, and has their number logged at the end of the minute.
/// </summary>
/// <remarks>Messages that clients can cause as often as they like must not fill the log. All members may be used from any thread.</remarks>
/// <param name="trySchedule">
/// Schedules a call after a delay. When it returns false, the call cannot be scheduled, and nothing is limited.
/// </param>
/// <param name="logLeftOut">Logs how many messages were left out.</param>
internal sealed class LogLimiter(Func<TimeSpan, Action, bool> trySchedule, Action<int> logLeftOut)
{
    /// <summary>The time after a message for which further messages are left out.</summary>
    internal static readonly TimeSpan Period = TimeSpan.FromMinutes(1);

    private readonly Lock _lock = new();
    private bool _isLimiting;
    private int _leftOut;

    /// <summary>Asks whether a message is to be logged.</summary>
    internal bool TryPass()
    {
        lock (_lock)
        {
            if (_isLimiting)
            {
                _leftOut++;
                return false;
            }

            _isLimiting = true;
        }

        BeginPeriod();
        return true;
    }

    private void BeginPeriod()
    {
        if (!trySchedule(Period, EndPeriod))
        {
            lock (_lock)
            {
                _isLimiting = false;
            }
        }
    }

    private void EndPeriod()
    {
        int leftOut;
        lock (_lock)
        {
            leftOut = _leftOut;
            _leftOut = 0;
            _isLimiting = leftOut > 0;
        }

        if (leftOut > 0)
        {
            // The number is the message of the period that begins.
            BeginPeriod();
            logLeftOut(leftOut);
        }
    }
}
