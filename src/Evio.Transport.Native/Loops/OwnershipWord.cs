namespace Evio.Transport.Native.Loops;

/// <summary>
/// The owner of a job that one thread does at a time (a loop, or a queue of calls) and that its owner can lose while it is in a call.
/// </summary>
/// <remarks>
/// <para>
/// One word holds the epoch of the ownership, and a bit that is set while the owner is in a call. Every call begins a new epoch, so the
/// same word at two samples means the same call. A transition writes the whole word at once. Only the owner knows the epoch and makes
/// transitions, except <see cref="TryRetake"/>, which any thread may make. A transition that can race with a retake is a compare-and-swap.
/// </para>
/// <code>
///               working, epoch n       in a call, epoch n
///  BeginCall    in a call, n + 1       -
///  TryReturn    -                      working, n
///  ResumeCall   in a call, n           -
///  HandOff      working, n + 1, of another thread       -
///  TryRetake    refused                working, n + 1, of another thread
/// </code>
/// <para>
/// A thread that has lost the job still holds the epoch n, which the word never has again. Its attempts to return fail, so it touches
/// nothing of the job. Epochs have 63 bits: they last for 292 years at a billion calls per second.
/// </para>
/// </remarks>
internal struct OwnershipWord
{
    private long _word;

    /// <summary>The word, for <see cref="TryRetake"/>. From any thread.</summary>
    internal readonly long Observe() => Volatile.Read(in _word);

    /// <summary>Compares the word with that of the last sample. From any thread.</summary>
    /// <param name="seen">The word of the last sample, and of this one afterwards.</param>
    internal readonly MonitorSample Sample(ref long seen)
    {
        var word = Observe();
        var isSame = word == seen;
        seen = word;
        return IsInCall(word)
            ? isSame ? MonitorSample.Stalled : MonitorSample.InCall
            : isSame ? MonitorSample.Idle : MonitorSample.Busy;
    }

    internal static bool IsInCall(long word) => (word & 1) != 0;

    /// <summary>
    /// Whether the epoch is still this one. From any thread; it stays true only for the owner, and only outside of calls.
    /// </summary>
    internal readonly bool IsEpoch(long epoch) => Volatile.Read(in _word) >> 1 == epoch;

    /// <summary>Begins a call. By the owner.</summary>
    /// <returns>The new epoch.</returns>
    internal long BeginCall(long epoch)
    {
        // Also the full fence before the caller's check whether the monitor sleeps.
        Interlocked.Exchange(ref _word, ((epoch + 1) << 1) | 1);
        return epoch + 1;
    }

    /// <summary>Returns from a call: at its end, or for a moment to do what only the owner may do.</summary>
    /// <returns>False when another thread owns the job.</returns>
    internal bool TryReturn(long epoch) => Interlocked.CompareExchange(ref _word, epoch << 1, (epoch << 1) | 1) == ((epoch << 1) | 1);

    /// <summary>Resumes the call that <see cref="TryReturn"/> has interrupted. It counts as the same call.</summary>
    internal void ResumeCall(long epoch) => Interlocked.Exchange(ref _word, (epoch << 1) | 1);

    /// <summary>Gives the job to another thread, outside of a call. By the owner, which has lost the job then.</summary>
    /// <returns>The new epoch.</returns>
    internal long HandOff(long epoch)
    {
        Interlocked.Exchange(ref _word, (epoch + 1) << 1);
        return epoch + 1;
    }

    /// <summary>Takes the job from an owner that is in a call. From any thread.</summary>
    /// <param name="word">What <see cref="Observe"/> has returned: if this succeeds, the call is still the same one.</param>
    /// <param name="epoch">The new epoch.</param>
    internal bool TryRetake(long word, out long epoch)
    {
        epoch = (word >> 1) + 1;
        return IsInCall(word) && Interlocked.CompareExchange(ref _word, epoch << 1, word) == word;
    }
}
