namespace Evio.Soak;

/// <summary>What the clients of one server have done, counted from any thread.</summary>
internal sealed class Tally
{
    private const int MaxKept = 20;

    private readonly List<string> _failures = [];
    private long _requests;
    private long _bytes;
    private long _faults;
    private long _repeats;
    private long _failed;

    /// <summary>Exchanges whose answers were right in every byte.</summary>
    public long Requests => Interlocked.Read(ref _requests);

    /// <summary>Bytes of answers that were compared with what they must be.</summary>
    public long Bytes => Interlocked.Read(ref _bytes);

    /// <summary>Aborts, resets, half-closes, cancellations, garbage: what clients did on purpose.</summary>
    public long Faults => Interlocked.Read(ref _faults);

    /// <summary>Datagrams that were sent again: UDP may lose them.</summary>
    public long Repeats => Interlocked.Read(ref _repeats);

    public long Failed => Interlocked.Read(ref _failed);

    /// <summary>The first failures, in words.</summary>
    public IReadOnlyList<string> Failures
    {
        get
        {
            lock (_failures)
            {
                return [.. _failures];
            }
        }
    }

    public void Verified(long bytes)
    {
        Interlocked.Increment(ref _requests);
        Interlocked.Add(ref _bytes, bytes);
    }

    public void Fault(int count = 1) => Interlocked.Add(ref _faults, count);

    public void Repeat() => Interlocked.Increment(ref _repeats);

    public void Fail(string failure)
    {
        Interlocked.Increment(ref _failed);
        lock (_failures)
        {
            if (_failures.Count < MaxKept)
            {
                _failures.Add(failure);
            }
        }
    }
}

/// <summary>An answer is not what it must be.</summary>
internal class SoakException(string message) : Exception(message);

internal sealed class ConnectionEndException(int got, int expected) : SoakException($"the connection ended after {got} of {expected} bytes");
