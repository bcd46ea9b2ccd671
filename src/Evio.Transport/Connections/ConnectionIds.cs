namespace Evio.Transport;

/// <summary>
/// Creates short, unique ids for connections in logs: 13 digits of base 32, as long as those of Kestrel's own transport. They begin at the
/// clock's time at the start of the process, so that the next process does not repeat them.
/// </summary>
internal static class ConnectionIds
{
    private const string Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUV";

    private static long LastId = DateTime.UtcNow.Ticks;

    internal static string Next() => string.Create(13, Interlocked.Increment(ref LastId), static (text, id) =>
    {
        for (var i = text.Length - 1; i >= 0; i--)
        {
            text[i] = Digits[(int)(id & 31)];
            id >>= 5;
        }
    });
}
