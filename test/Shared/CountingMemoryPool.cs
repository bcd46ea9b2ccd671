using System.Buffers;
using System.Collections.Concurrent;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport.Testing;

/// <summary>A pool that knows how many of its blocks are out, and how often one was given back twice.</summary>
internal sealed class CountingMemoryPool : MemoryPool<byte>
{
    private const int BlockSize = 4096;
    private int _rented;
    private int _outstanding;
    private int _doubleReturns;

    public override int MaxBufferSize => BlockSize;

    public int Outstanding => Volatile.Read(ref _outstanding);

    public int Rented => Volatile.Read(ref _rented);

    public int DoubleReturns => Volatile.Read(ref _doubleReturns);

    public override IMemoryOwner<byte> Rent(int minBufferSize = -1)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(minBufferSize, BlockSize);
        Interlocked.Increment(ref _rented);
        Interlocked.Increment(ref _outstanding);
        return new Block(this);
    }

    protected override void Dispose(bool disposing)
    {
    }

    private sealed class Block(CountingMemoryPool pool) : IMemoryOwner<byte>
    {
        private byte[]? _bytes = GC.AllocateUninitializedArray<byte>(BlockSize, pinned: true);

        public Memory<byte> Memory => _bytes ?? throw new ObjectDisposedException(nameof(Block), "The block is back in the pool.");

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _bytes, null) is not { } bytes)
            {
                Interlocked.Increment(ref pool._doubleReturns);
                return;
            }

            // Whoever still reads the block must not find the right content by luck.
            Array.Fill(bytes, (byte)0xDD);
            Interlocked.Decrement(ref pool._outstanding);
        }
    }
}

/// <summary>Gives out <see cref="CountingMemoryPool"/>s and adds them up.</summary>
internal sealed class CountingMemoryPoolFactory : IMemoryPoolFactory<byte>
{
    private readonly ConcurrentBag<CountingMemoryPool> _pools = [];

    public int Outstanding => _pools.Sum(static p => p.Outstanding);

    public int Rented => _pools.Sum(static p => p.Rented);

    public int DoubleReturns => _pools.Sum(static p => p.DoubleReturns);

    public MemoryPool<byte> Create(MemoryPoolOptions? options = null)
    {
        var pool = new CountingMemoryPool();
        _pools.Add(pool);
        return pool;
    }

    /// <summary>How many of the pools made here <paramref name="pool"/> is: one or none.</summary>
    public int Owning(MemoryPool<byte> pool) => _pools.Count(made => ReferenceEquals(made, pool));
}
