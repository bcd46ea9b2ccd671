using System.Buffers;

namespace Evio.Transport.Pipes;

/// <summary>Opens segments on blocks of a pool, and keeps a closed one (the object, not the block) for the next time.</summary>
/// <remarks>One thread may open while another closes.</remarks>
internal struct BlockSource(MemoryPool<byte> pool)
{
    /// <summary>The size of the framework's pooled blocks.</summary>
    internal const int UsualSize = 4096;

    private BufferSegment? _spare;

    /// <param name="atLeast">The least size.</param>
    /// <param name="expected">How much is about to come. More than a block of the usual size makes it a larger one: one of the shared arrays, as in System.IO.Pipelines.</param>
    internal BufferSegment Open(int atLeast, int expected)
    {
        var segment = Interlocked.Exchange(ref _spare, null) ?? new BufferSegment();
        var size = expected > UsualSize ? Math.Max(atLeast, expected) : atLeast;
        if (size <= pool.MaxBufferSize)
        {
            segment.Open(pool.Rent(size == 0 ? -1 : size));
        }
        else
        {
            segment.Open(ArrayPool<byte>.Shared.Rent(size));
        }

        return segment;
    }

    /// <summary>Puts the little that a large block holds into one of its own size, and closes the large one.</summary>
    /// <returns>The block, with <paramref name="content"/> at its front and not filled yet. When there is none to be had, nothing has changed.</returns>
    internal BufferSegment Exchange(BufferSegment large, ReadOnlySpan<byte> content)
    {
        var segment = Open(content.Length, content.Length);
        content.CopyTo(segment.Free.Span);
        Close(large);
        return segment;
    }

    internal void Close(BufferSegment segment)
    {
        segment.Close();
        Volatile.Write(ref _spare, segment);
    }
}
