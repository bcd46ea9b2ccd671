using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Callbacks;

/// <summary>A piece of output: a block that is being filled, or memory of a caller of <see cref="Connection.SendAsync"/>.</summary>
internal sealed class OutputBlock
{
    /// <summary>The pooled memory; <see langword="null"/> for a caller's.</summary>
    internal byte[]? Array;

    internal ReadOnlyMemory<byte> Memory;

    /// <summary>The number of bytes that are filled, and of those that are sent.</summary>
    internal int Filled;
    internal int Sent;

    /// <summary>Completed when all of <see cref="Memory"/> is sent.</summary>
    internal PendingSend? Completion;

    internal OutputBlock? Next;
    internal OutputBlock? Previous;
}

/// <summary>Bytes that a caller of <see cref="Connection.SendAsync"/> waits for.</summary>
internal sealed class PendingSend(ReadOnlyMemory<byte> data) : TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)
{
    private int _isClaimed;

    internal ReadOnlyMemory<byte> Data => data;

    /// <summary>Where the bytes are in the connection's output; <see langword="null"/> while they are not there.</summary>
    internal OutputBlock? Block { get; set; }

    /// <summary>
    /// Decides, once, what happens to the bytes: the loop takes them into the connection's output, or a cancellation withdraws them before.
    /// From any thread.
    /// </summary>
    /// <returns>Whether the caller is the first.</returns>
    internal bool TryClaim() => Interlocked.Exchange(ref _isClaimed, 1) == 0;
}

/// <summary>The blocks of a loop that no connection uses at the moment. Used by the loop only, so it needs no lock.</summary>
internal sealed class OutputBlocks
{
    internal const int BlockSize = 16 * 1024;

    /// <summary>The largest number of blocks that are kept: 4 MiB.</summary>
    private const int MaxKept = 256;

    private OutputBlock? _free;
    private int _count;

    /// <summary>A block with room for at least <paramref name="size"/> bytes.</summary>
    internal OutputBlock Rent(in LoopOwner owner, int size)
    {
        owner.Verify();
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
            // For a single write. The garbage collector takes it afterwards.
            var large = new byte[size];
            return new OutputBlock { Array = large, Memory = large };
        }

        // Pinned for its lifetime, because the kernel gets it again and again.
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
        block.Previous = null;
        block.Next = _free;
        _free = block;
        _count++;
    }
}
