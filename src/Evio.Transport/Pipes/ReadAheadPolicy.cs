namespace Evio.Transport.Pipes;

/// <summary>
/// Whether the loop receives before the user asks, as far as the read buffer goes. Input stays in the kernel as a rule. It is read ahead when the buffer has no limit, when the end of the input is near (so that the
/// end is noticed while the user is busy), and when the user leaves input in the kernel for long (<see cref="UnreadInputMonitor"/>).
/// </summary>
/// <param name="maxBuffered">The size of the read buffer in bytes; <see cref="long.MaxValue"/> for no limit.</param>
/// <remarks>A part of the reader, whose gate guards it.</remarks>
internal struct ReadAheadPolicy(long maxBuffered)
{
    private Unread _unread;

    /// <summary>The size of the read buffer in bytes.</summary>
    internal readonly long MaxBuffered => maxBuffered;

    /// <summary>Whether the monitor of unread input has the reader.</summary>
    internal bool IsMonitored { get; set; }

    /// <summary>Whether input is read ahead because the user has left it in the kernel for long.</summary>
    internal readonly bool IsOverdue => _unread == Unread.Overdue;

    /// <param name="isEndAhead">Whether the end of the input may follow.</param>
    internal readonly bool ReadsAhead(bool isEndAhead) => isEndAhead || IsOverdue || maxBuffered == long.MaxValue;

    /// <summary>The user has begun to read.</summary>
    internal void NoteRead() => _unread = Unread.None;

    /// <summary>The monitor of unread input has found some.</summary>
    /// <param name="isReading">Whether a read waits, or its completion is on its way.</param>
    internal void NoteUnread(bool isReading)
    {
        if (isReading)
        {
            _unread = Unread.None;
        }
        else if (!IsOverdue)
        {
            _unread++;
        }
    }

    private enum Unread : byte
    {
        None,

        /// <summary>The monitor has found input once, and no read has begun since.</summary>
        Once,

        /// <summary>The monitor has found it twice: the loop reads ahead until the user reads again.</summary>
        Overdue,
    }
}
