namespace Evio.Transport.Pipes;

/// <summary>
/// Decides whether the loop receives before the application reads, up to the size of the read buffer. As a rule, input stays in the kernel.
/// It is read ahead in three cases. The buffer has no limit. Or the end of the input is near, and is to be noticed while the application is
/// busy. Or the application has left input in the kernel for long (<see cref="UnreadInputMonitor"/>).
/// </summary>
/// <param name="maxBuffered">The size of the read buffer in bytes; <see cref="long.MaxValue"/> for no limit.</param>
/// <remarks>A part of the reader. The connection's gate guards it.</remarks>
internal struct ReadAheadPolicy(long maxBuffered)
{
    private Unread _unread;

    /// <summary>The size of the read buffer in bytes.</summary>
    internal readonly long MaxBuffered => maxBuffered;

    /// <summary>Whether the unread-input monitor watches the reader.</summary>
    internal bool IsMonitored { get; set; }

    /// <summary>Whether input is read ahead because the application has left it in the kernel for long.</summary>
    internal readonly bool IsUnreadForLong => _unread == Unread.ForLong;

    /// <param name="isEndAhead">Whether the end of the input may follow.</param>
    internal readonly bool ReadsAhead(bool isEndAhead) => isEndAhead || IsUnreadForLong || maxBuffered == long.MaxValue;

    /// <summary>Notes that a read has begun.</summary>
    internal void NoteRead() => _unread = Unread.None;

    /// <summary>Notes that the unread-input monitor has found input.</summary>
    /// <param name="isReading">Whether a read waits, or its completion is under way.</param>
    internal void NoteUnread(bool isReading)
    {
        if (isReading)
        {
            _unread = Unread.None;
        }
        else if (!IsUnreadForLong)
        {
            _unread++;
        }
    }

    private enum Unread : byte
    {
        None,

        /// <summary>The monitor has found input once, and no read has begun since.</summary>
        Once,

        /// <summary>The monitor has found input twice: the loop reads ahead until the next read begins.</summary>
        ForLong,
    }
}
