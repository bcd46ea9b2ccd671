using System.Buffers;
using System.Diagnostics;

namespace Evio.Transport.Pipes;

/// <summary>
/// A block of a connection's input or output, from a pool or the shared arrays. It is filled from the front and followed by the next block.
/// </summary>
internal sealed class BufferSegment : ReadOnlySequenceSegment<byte>
{
    private IMemoryOwner<byte>? _owner;
    private byte[]? _array;
    private Memory<byte> _block;

    internal BufferSegment? NextSegment => (BufferSegment?)Next;

    internal int Size => _block.Length;

    /// <summary>The number of bytes that are filled.</summary>
    internal int Length => Memory.Length;

    /// <summary>The part of the block that is not filled yet.</summary>
    internal Memory<byte> Free => _block[Length..];

    /// <summary>
    /// The filled bytes from <paramref name="start"/> on, at most <paramref name="most"/> of them. It may be called while another thread
    /// fills more of the block: the block stays the same, and the length, old or new, is read in one piece.
    /// </summary>
    internal ReadOnlyMemory<byte> Filled(int start, long most) => _block.Slice(start, (int)Math.Min(Length - start, most));

    internal void Open(IMemoryOwner<byte> owner)
    {
        _owner = owner;
        Open(owner.Memory);
    }

    internal void Open(byte[] array)
    {
        _array = array;
        Open(array.AsMemory());
    }

    private void Open(Memory<byte> block)
    {
        Debug.Assert(_block.IsEmpty);
        _block = block;
        Memory = default;
        RunningIndex = 0;
    }

    /// <summary>Counts bytes that were written to <see cref="Free"/>. Only the last segment of a list grows.</summary>
    internal void Fill(int count)
    {
        Debug.Assert(Next is null);
        Memory = _block[..(Length + count)];
    }

    internal void Append(BufferSegment next)
    {
        next.RunningIndex = RunningIndex + Length;
        Next = next;
    }

    /// <summary>Returns the block to the pool or the shared arrays.</summary>
    internal void Close()
    {
        if (_array is not null)
        {
            ArrayPool<byte>.Shared.Return(_array);
        }
        else
        {
            _owner!.Dispose();
        }

        _array = null;
        _owner = null;
        _block = default;
        Memory = default;
        Next = null;
    }
}
