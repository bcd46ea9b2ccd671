namespace Evio.Soak;

/// <summary>What a server's own code does to it at random, from a seed.</summary>
internal sealed class Mischief(int seed)
{
    private readonly Random _random = new(seed);
    private long _thrown;

    /// <summary>How often something was thrown.</summary>
    public long Thrown => Interlocked.Read(ref _thrown);

    public int Next(int bound)
    {
        lock (_random)
        {
            return _random.Next(bound);
        }
    }

    /// <summary>Blocks the thread for 1 to 50 milliseconds, in one of eight calls.</summary>
    public void MayBlock()
    {
        if (Next(8) == 0)
        {
            Thread.Sleep(Next(4) == 0 ? Next(50) + 1 : Next(8) + 1);
        }
    }

    /// <summary>Throws in one of so many calls.</summary>
    public void MayThrow(int calls, string where)
    {
        if (Next(calls) == 0)
        {
            Throw(where);
        }
    }

    public void Throw(string where)
    {
        Interlocked.Increment(ref _thrown);
        throw new MischiefException(where);
    }
}

/// <summary>Thrown on purpose.</summary>
internal sealed class MischiefException(string where) : Exception(Beginning + where + ".")
{
    /// <summary>What its message begins with, in any log.</summary>
    public const string Beginning = "On purpose, from ";
}
