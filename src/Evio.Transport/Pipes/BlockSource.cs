using System.Buffers;

namespace Evio.Transport.Pipes;

/// <summary>Opens segments on blocks of a pool, and keeps a closed one (the object, not the block) for the next time.</summary>
/// <remarks>One thread may open while another closes.</remarks>
internal struct BlockSource(MemoryPool<byte> pool)
{
    private BufferSegment? _spare;

    internal BufferSegment Open(int sizeHint = 0)
    {
        var segment = Interlocked.Exchange(ref _spare, null) ?? new BufferSegment();

        // Larger than the pool's blocks: from the shared arrays, as System.IO.Pipelines does.
        segment.Open(sizeHint <= pool.MaxBufferSize ? pool.Rent(sizeHint == 0 ? -1 : sizeHint) : MemoryPool<byte>.Shared.Rent(sizeHint));
        return segment;
    }

    internal void Close(BufferSegment segment)
    {
        segment.Close();
        Volatile.Write(ref _spare, segment);
    }
}
