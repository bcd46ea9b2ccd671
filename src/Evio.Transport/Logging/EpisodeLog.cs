namespace Evio.Transport;

/// <summary>Logs the beginning and the end of at most one episode per minute, and the number of the others.</summary>
/// <remarks>
/// If the beginning of an episode was left out, and the episode lasts at the end of the minute, it is logged then. So the last message
/// always describes the current state. All members may be used from any thread.
/// </remarks>
/// <typeparam name="T">What is known of an episode.</typeparam>
internal sealed class EpisodeLog<T>
{
    private readonly Action<T> _logBegin;
    private readonly Action _logEnd;
    private readonly Action<int> _logLeftOut;
    private readonly LogLimiter _limiter;

    // What follows is guarded by this.
    private readonly Lock _lock = new();
    private bool _isLogged;
    private T? _last;

    // The number of episodes that have begun and not ended. Different threads may report the beginning and the end, and the end first: then
    // the number is negative for a moment.
    private int _open;

    /// <param name="trySchedule">As for <see cref="LogLimiter"/>.</param>
    /// <param name="logBegin">Logs the beginning.</param>
    /// <param name="logEnd">Logs the end.</param>
    /// <param name="logLeftOut">Logs how many episodes were left out.</param>
    internal EpisodeLog(Func<TimeSpan, Action, bool> trySchedule, Action<T> logBegin, Action logEnd, Action<int> logLeftOut)
    {
        _logBegin = logBegin;
        _logEnd = logEnd;
        _logLeftOut = logLeftOut;
        _limiter = new LogLimiter(trySchedule, LogLeftOut);
    }

    internal void Begin(T what)
    {
        var passes = _limiter.TryPass();
        bool ended;
        lock (_lock)
        {
            ended = ++_open <= 0;
            _isLogged |= passes && !ended;
            _last = what;
        }

        if (passes)
        {
            _logBegin(what);
            if (ended)
            {
                _logEnd();
            }
        }
    }

    internal void End()
    {
        bool isLogged;
        lock (_lock)
        {
            isLogged = --_open <= 0 && _isLogged;
            _isLogged &= !isLogged;
        }

        if (isLogged)
        {
            _logEnd();
        }
    }

    private void LogLeftOut(int count)
    {
        bool begins;
        T? last;
        lock (_lock)
        {
            begins = _open > 0 && !_isLogged;
            _isLogged |= begins;
            last = _last;
        }

        count -= begins ? 1 : 0;
        if (count > 0)
        {
            _logLeftOut(count);
        }

        if (begins)
        {
            _logBegin(last!);
        }
    }
}
