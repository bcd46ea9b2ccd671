using System.Buffers;

namespace Evio.Transport.Pipes;

/// <summary>
/// Opens segments on blocks of a pool, for all connections of a loop, and keeps some closed ones (the objects, not the blocks) for the next time: an idle connection
/// has none of its own.
/// </summary>
/// <remarks>To be used from any thread.</remarks>
internal sealed class BlockSource(MemoryPool<byte> pool)
{
    /// <summary>The size of the framework's pooled blocks.</summary>
    internal const int UsualSize = 4096;

    /// <summary>How many are kept. A connection has two of them in use while a request is answered, and mostly none afterwards.</summary>
    private const int MaxSpares = 32;

    private readonly BufferSegment?[] _spares = new BufferSegment?[MaxSpares];

    internal MemoryPool<byte> Pool => pool;

    /// <param name="atLeast">The least size.</param>
    /// <param name="expected">How much is about to come. More than a block of the usual size makes it a larger one: one of the shared arrays, as in System.IO.Pipelines.</param>
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
