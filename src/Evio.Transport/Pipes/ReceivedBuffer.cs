using System.Buffers;

namespace Evio.Transport.Pipes;

/// <summary>
/// The bytes that a connection has received and the application has not consumed: a list of blocks, filled at its end and released from its
/// front.
/// </summary>
/// <remarks>
/// A part of the reader. The connection's gate guards it. Between <see cref="BeginReceive"/> and <see cref="EndReceive"/>, a system call
/// fills the free end of <see cref="Filling"/>. That block is not released, whatever is consumed meanwhile. An idle connection holds no
/// block.
/// </remarks>
internal struct ReceivedBuffer(BlockSource blocks)
{
    /// <summary>
    /// The least room at the end of a block in bytes. With less, the room is left unused, and a receive begins a new block.
    /// </summary>
    private const int MinReceive = 2048;

    // The bytes reach from _headIndex in _head to the end of _tail.
    private BufferSegment? _head;
    private BufferSegment? _tail;
    private int _headIndex;

    internal readonly BlockSource Blocks => blocks;

    /// <summary>The number of bytes that the application has not examined yet.</summary>
    internal long Unexamined { get; private set; }

    /// <summary>The block that the receive under way goes on filling; <see langword="null"/> when it fills a new one.</summary>
    internal BufferSegment? Filling { get; private set; }

    /// <summary>All bytes.</summary>
    internal readonly ReadOnlySequence<byte> Bytes =>
        _head is null ? default : new ReadOnlySequence<byte>(_head, _headIndex, _tail!, _tail!.Length);

    /// <summary>Whether there are at least <paramref name="count"/> bytes, examined or not. The buffer must not be empty.</summary>
    internal readonly bool Has(int count) => count <= 1 || Position(_tail!, _tail!.Length) - Position(_head!, _headIndex) >= count;

    /// <param name="intoTail">Whether the receive may go on filling the last block.</param>
    /// <param name="expected">The number of bytes that it may bring.</param>
    internal void BeginReceive(bool intoTail, int expected) =>
        Filling = intoTail && _tail is { } tail && tail.Free.Length >= Math.Max(MinReceive, expected) ? tail : null;

    /// <param name="received">
    /// The block that was received into: <see cref="Filling"/>, or a new one, which becomes a part of this buffer.
    /// </param>
    /// <param name="count">The number of bytes; with 0, the call only ends <see cref="Filling"/>.</param>
    internal void EndReceive(BufferSegment? received, int count)
    {
        Filling = null;
        if (count > 0)
        {
            Append(received!, count);
            Unexamined += count;
        }
        else if (_head is not null && _headIndex == _head.Length && Unexamined == 0)
        {
            // The application has consumed the whole block, which the receive was to go on filling.
            ReleaseHead();
        }
    }

    /// <summary>Notes what the application has consumed and examined.</summary>
    /// <param name="consumed">A position of <see cref="Bytes"/>, which may have grown since.</param>
    /// <param name="examined">The same.</param>
    /// <param name="isReceiving">Whether a receive is under way.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="examined"/> is behind the end.</exception>
    /// <exception cref="InvalidOperationException">
    /// The positions are not within the buffer, or contradict each other or earlier ones. Nothing has changed then.
    /// </exception>
    internal void Advance(SequencePosition consumed, SequencePosition examined, bool isReceiving) =>
        Advance((BufferSegment?)consumed.GetObject(), consumed.GetInteger(), (BufferSegment?)examined.GetObject(), examined.GetInteger(), isReceiving);

    private void Advance(BufferSegment? consumed, int consumedIndex, BufferSegment? examined, int examinedIndex, bool isReceiving)
    {
        if (consumed is not null && examined is not null && Position(consumed, consumedIndex) > Position(examined, examinedIndex))
        {
            throw new InvalidOperationException("The examined position must be greater than or equal to the consumed position.");
        }

        var end = _tail is null ? 0 : Position(_tail, _tail.Length);
        var unexamined = Unexamined;
        if (examined is not null)
        {
            // Bytes that came in since the read stay unexamined.
            unexamined = end - Position(examined, examinedIndex);
            ArgumentOutOfRangeException.ThrowIfNegative(unexamined, nameof(examined));
            if (unexamined > Unexamined)
            {
                throw new InvalidOperationException("The examined position is before what was examined earlier.");
            }
        }

        if (consumed is null)
        {
            Unexamined = unexamined;
            return;
        }

        var segment = _head;
        while (segment is not null && segment != consumed)
        {
            segment = segment.NextSegment;
        }

        if (segment is null || (uint)consumedIndex > (uint)consumed.Length || (consumed == _head && consumedIndex < _headIndex))
        {
            throw new InvalidOperationException("The consumed position is not within the buffer that was read.");
        }

        Unexamined = unexamined;
        while (_head != consumed)
        {
            ReleaseHead();
        }

        _headIndex = consumedIndex;
        if (_headIndex == _head!.Length && (_head.NextSegment is not null || Unexamined == 0) && _head != Filling)
        {
            ReleaseHead();
        }
        else if (_head == _tail && _head.Size > BlockSource.UsualSize && _head.Length - _headIndex <= MinReceive && !isReceiving)
        {
            // The rest may be the beginning of the next request, and what follows may take long to arrive. It does not keep a large block.
            var rest = _head.Memory.Span[_headIndex..];
            _head = _tail = blocks.Exchange(_head, rest);
            _head.Fill(rest.Length);
            _headIndex = 0;
        }
    }

    /// <summary>Releases all blocks. No receive may be under way.</summary>
    internal void Clear()
    {
        while (_head is not null)
        {
            ReleaseHead();
        }

        Unexamined = 0;
    }

    private void Append(BufferSegment received, int count)
    {
        if (_tail is null)
        {
            _head = received;
            _headIndex = 0;
        }
        else if (_tail != received)
        {
            if (count <= Math.Min(MinReceive, _tail.Free.Length))
            {
                // A peer that sends byte by byte does not occupy a block for each byte.
                received.Free.Span[..count].CopyTo(_tail.Free.Span);
                blocks.Close(received);
                received = _tail;
            }
            else
            {
                _tail.Append(received);
            }
        }

        received.Fill(count);
        _tail = received;
    }

    private void ReleaseHead()
    {
        var released = _head!;
        _head = released.NextSegment;
        _headIndex = 0;
        if (_head is null)
        {
            _tail = null;
        }

        blocks.Close(released);
    }

    private static long Position(BufferSegment segment, int index) => segment.RunningIndex + index;
}
