namespace Evio.Transport.Native.Callbacks;

/// <summary>A piece of output: a block that is being filled, or memory that somebody else owns and is told when it is sent.</summary>
internal sealed class OutputBlock
{
    /// <summary>The pooled memory; null for somebody else's.</summary>
    internal byte[]? Array;

    internal ReadOnlyMemory<byte> Memory;

    /// <summary>How much of it is filled, and how much of that is sent.</summary>
    internal int Filled;
    internal int Sent;

    /// <summary>Completed when all of <see cref="Memory"/> is sent.</summary>
    internal TaskCompletionSource? Completion;

    internal OutputBlock? Next;
}

/// <summary>A loop's blocks that no connection uses at the moment. Only the loop touches it, so it takes no lock.</summary>
internal sealed class OutputBlocks
{
    internal const int BlockSize = 16 * 1024;

    /// <summary>How many unused blocks are kept: 4 MiB.</summary>
    private const int MaxKept = 256;

    private OutputBlock? _free;
    private int _count;

    /// <summary>A block with room for at least <paramref name="size"/> bytes.</summary>
    internal OutputBlock Rent(int size)
    {
        if (size > BlockSize || _free is not { } block)
        {
            return Create(size);
        }

        _free = block.Next;
        _count--;
        block.Next = null;
        return block;
    }

    /// <summary>A new block with room for at least <paramref name="size"/> bytes. From any thread.</summary>
    internal static OutputBlock Create(int size)
    {
        if (size > BlockSize)
        {
            // Made for one write, and left to the garbage collector.
            var large = new byte[size];
            return new OutputBlock { Array = large, Memory = large };
        }

        // Pinned for good: it is handed to the kernel over and over.
        var array = GC.AllocateUninitializedArray<byte>(BlockSize, pinned: true);
        return new OutputBlock { Array = array, Memory = array };
    }

    internal void Return(OutputBlock block)
    {
        if (block.Array is not { Length: BlockSize } || _count == MaxKept)
        {
            return;
        }

        block.Filled = 0;
        block.Sent = 0;
        block.Next = _free;
        _free = block;
        _count++;
    }
}
