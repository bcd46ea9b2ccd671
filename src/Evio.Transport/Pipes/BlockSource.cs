using System.Buffers;

namespace Evio.Transport.Pipes;

/// <summary>
/// Opens segments on blocks of a pool, for all connections of a loop. Closed segments (the objects, not the blocks) are kept for the next
/// time, so that an idle connection has none of its own.
/// </summary>
/// <remarks>May be used from any thread.</remarks>
internal sealed class BlockSource(MemoryPool<byte> pool)
{
    /// <summary>The size of the framework's pooled blocks.</summary>
    internal const int UsualSize = 4096;

    /// <summary>
    /// The largest number of closed segments that are kept. A connection uses two while it answers a request, and mostly none afterwards.
    /// </summary>
    private const int MaxSpares = 32;

    private readonly BufferSegment?[] _spares = new BufferSegment?[MaxSpares];

    internal MemoryPool<byte> Pool => pool;

    /// <summary>Opens a segment on a block.</summary>
    /// <param name="atLeast">The least size of the block in bytes.</param>
    /// <param name="expected">
    /// The number of bytes that are about to come. More than <see cref="UsualSize"/> get a larger block; one beyond the pool's largest is
    /// one of the shared arrays, as in System.IO.Pipelines.
    /// </param>
    internal BufferSegment Open(int atLeast, int expected)
    {
        var segment = TakeSpare() ?? new BufferSegment();
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

    /// <summary>Copies the content of a large block into a block of the content's size, and closes the large one.</summary>
    /// <returns>
    /// The new segment. <paramref name="content"/> is at its front, and <see cref="BufferSegment.Fill"/> has not counted it yet. If no
    /// block can be had, this throws, and nothing has changed.
    /// </returns>
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
        foreach (ref var spare in _spares.AsSpan())
        {
            if (spare is null && Interlocked.CompareExchange(ref spare, segment, null) is null)
            {
                return;
            }
        }
    }

    private BufferSegment? TakeSpare()
    {
        foreach (ref var spare in _spares.AsSpan())
        {
            if (spare is not null && Interlocked.Exchange(ref spare, null) is { } taken)
            {
                return taken;
            }
        }

        return null;
    }
}
