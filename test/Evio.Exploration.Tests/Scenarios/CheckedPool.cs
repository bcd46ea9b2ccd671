using System.Buffers;
using Microsoft.AspNetCore.Connections;

namespace Exploration.Scenarios;

/// <summary>Pools of small blocks, each of which has to come back once, and before the pools end.</summary>
/// <param name="blockSize">The size of all blocks.</param>
/// <param name="rentsInSteps">Whether other threads may do something before a block is rented.</param>
internal sealed class CheckedPool(int blockSize, bool rentsInSteps = false) : MemoryPool<byte>, IMemoryPoolFactory<byte>
{
    private bool _isDisposed;

    internal int Outstanding { get; private set; }

    public override int MaxBufferSize => blockSize;

    public MemoryPool<byte> Create(MemoryPoolOptions? options = null) => this;

    public override IMemoryOwner<byte> Rent(int minBufferSize = -1)
    {
        Assert.True(minBufferSize <= blockSize);
        if (rentsInSteps)
        {
            Execution.Step("rents");
        }

        Assert.False(_isDisposed, "A block was rented after the pool's end.");
        Outstanding++;
        return new Block(this);
    }

    protected override void Dispose(bool disposing)
    {
        Assert.Equal(0, Outstanding);
        _isDisposed = true;
    }

    private sealed class Block(CheckedPool pool) : IMemoryOwner<byte>
    {
        private byte[]? _bytes = GC.AllocateUninitializedArray<byte>(pool.MaxBufferSize, pinned: true);

        public Memory<byte> Memory => _bytes ?? throw new ObjectDisposedException(nameof(Block), "The block is back in the pool.");

        public void Dispose()
        {
            if (_bytes is null)
            {
                Execution.Current.Fail("A block was given back twice.");
            }

            // Whoever still reads it must not find the right content by luck.
            Array.Fill(_bytes!, (byte)'#');
            _bytes = null;
            pool.Outstanding--;
        }
    }
}
