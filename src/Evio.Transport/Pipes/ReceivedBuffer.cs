using System.Buffers;

namespace Evio.Transport.Pipes;

/// <summary>What a connection has received and its user has not consumed: a list of blocks, filled at its end and given back from its front.</summary>
/// <remarks>
/// A part of the reader, whose gate guards it. Between <see cref="BeginReceive"/> and <see cref="EndReceive"/> a system call fills the free end of <see cref="Filling"/>, and that block is not given back,
/// whatever is consumed meanwhile. An idle connection holds no block.
/// </remarks>
internal struct ReceivedBuffer(BlockSource blocks)
{
    /// <summary>Less room than this at the end of a block is left unused, and a receive begins a new one.</summary>
    private const int MinReceive = 2048;

    // From _headIndex in _head to the end of _tail.
    private BufferSegment? _head;
    private BufferSegment? _tail;
    private int _headIndex;

    internal readonly BlockSource Blocks => blocks;

    /// <summary>How many of the bytes the user has not examined yet.</summary>
    internal long Unexamined { get; private set; }

    /// <summary>The block that the receive that is under way goes on filling, if it does.</summary>
    internal BufferSegment? Filling { get; private set; }

    /// <summary>All of it.</summary>
    internal readonly ReadOnlySequence<byte> Bytes =>
        _head is null ? default : new ReadOnlySequence<byte>(_head, _headIndex, _tail!, _tail!.Length);

    /// <summary>Whether there are so many bytes, examined or not. There is at least one.</summary>
    internal readonly bool Has(int count) => count <= 1 || Position(_tail!, _tail!.Length) - Position(_head!, _headIndex) >= count;

    /// <param name="intoTail">Whether the receive may go on filling the last block.</param>
    /// <param name="expected">How many bytes it may bring.</param>
    internal void BeginReceive(bool intoTail, int expected) =>
        Filling = intoTail && _tail is { } tail && tail.Free.Length >= Math.Max(MinReceive, expected) ? tail : null;

    /// <param name="received">The block that was received into: <see cref="Filling"/>, or one that becomes this buffer's.</param>
    /// <param name="count">The number of bytes; if there are none, only <see cref="Filling"/> ends.</param>
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
            // It was consumed whole while the receive was to go on filling it.
            ReleaseHead();
        }
    }

    /// <summary>Takes note of what the user has consumed and examined.</summary>
    /// <param name="consumed">A position of <see cref="Bytes"/>, which may have grown since.</param>
    /// <param name="examined">The same.</param>
    /// <param name="isReceiving">Whether a receive is under way.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="examined"/> is behind the end.</exception>
    /// <exception cref="InvalidOperationException">The positions are not within it, or contradict each other or earlier ones. Nothing has changed then.</exception>
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
            // What came in since the read stays unexamined.
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
            // The beginning of the next request, for example, whose rest may take long to arrive: it does not keep a large block.
            var rest = _head.Memory.Span[_headIndex..];
            _head = _tail = blocks.Exchange(_head, rest);
            _head.Fill(rest.Length);
            _headIndex = 0;
        }
    }

    /// <summary>Gives back all blocks. No receive is under way.</summary>
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
                // A peer that sends byte by byte does not get a block for each of them.
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
