namespace Evio.Transport.Native.Loops;

/// <summary>
/// Who may go on with a job that one thread does at a time, a loop or a queue of calls, when that thread may get stuck in a call on the way.
/// </summary>
/// <remarks>
/// <para>
/// One word holds the number of the turn, and whether its thread is in a call. Every call begins a new turn, so a word that has not changed between two
/// looks means the same call. All transitions are compare-and-swaps on the whole word, by the thread that knows the turn's number, or, for
/// <see cref="TryTakeOver"/> alone, by anyone:
/// </para>
/// <code>
///                   working, turn n        in a call, turn n
///  BeginCall        in a call, n + 1       -
///  TryReturn        -                      working, n
///  GoOn             in a call, n           -
///  TryTakeOver      refused                working, n + 1, of another thread
///  PassOn           the same               -
/// </code>
/// <para>
/// A thread that was taken over still holds the number n, which the word will never have again: each of its attempts to return fails, and it touches
/// nothing of the job. Turns are numbered with 63 bits; at a billion calls a second they last for 292 years.
/// </para>
/// </remarks>
internal struct TurnTaking
{
    private long _word;

    /// <summary>The word, for <see cref="TryTakeOver"/>. From any thread.</summary>
    internal readonly long Observe() => Volatile.Read(in _word);

    /// <summary>What is to be seen of the job, by one who looks at it again and again.</summary>
    /// <param name="seen">The word of the last look, and of this one afterwards.</param>
    internal readonly Sight Look(ref long seen)
    {
        var word = Observe();
        var isSame = word == seen;
        seen = word;
        return IsInCall(word)
            ? isSame ? Sight.Overdue : Sight.InCall
            : isSame ? Sight.Idle : Sight.Busy;
    }

    internal static bool IsInCall(long word) => (word & 1) != 0;

    /// <summary>Whether the turn is still this one. From any thread; it stays true only for the turn's own thread, and only outside of calls.</summary>
    internal readonly bool IsTurn(long turn) => Volatile.Read(in _word) >> 1 == turn;

    /// <summary>Goes into a call. By the turn's thread.</summary>
    /// <returns>The number of the new turn.</returns>
    internal long BeginCall(long turn)
    {
        // A full fence as well: whoever is asleep and is to be woken when a call begins is asked after it.
        Interlocked.Exchange(ref _word, ((turn + 1) << 1) | 1);
        return turn + 1;
    }

    /// <summary>Comes back from a call, for good or for something that only the turn's thread may do.</summary>
    /// <returns>False when the turn was taken over.</returns>
    internal bool TryReturn(long turn) => Interlocked.CompareExchange(ref _word, turn << 1, (turn << 1) | 1) == ((turn << 1) | 1);

    /// <summary>Goes on with the call that <see cref="TryReturn"/> came back from. It counts as the same call.</summary>
    internal void GoOn(long turn) => Interlocked.Exchange(ref _word, (turn << 1) | 1);

    /// <summary>Gives the job to another thread, without a call. By the turn's thread, which has none then.</summary>
    /// <returns>The number of the new turn.</returns>
    internal long PassOn(long turn)
    {
        Interlocked.Exchange(ref _word, (turn + 1) << 1);
        return turn + 1;
    }

    /// <summary>Takes the job from a thread that is in a call. From any thread.</summary>
    /// <param name="word">What <see cref="Observe"/> has returned: the call is still the same one if it succeeds.</param>
    /// <param name="turn">The number of the new turn.</param>
    internal bool TryTakeOver(long word, out long turn)
    {
        turn = (word >> 1) + 1;
        return IsInCall(word) && Interlocked.CompareExchange(ref _word, turn << 1, word) == word;
    }
}
