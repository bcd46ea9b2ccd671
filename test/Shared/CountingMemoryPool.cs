using System.Buffers;
using System.Collections.Concurrent;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport.Testing;

/// <summary>A pool that knows how many of its blocks and bytes are out, and how often a block was given back twice.</summary>
internal sealed class CountingMemoryPool : MemoryPool<byte>
{
    private const int BlockSize = 4096;
    private int _rented;
    private long _outstandingBytes;
    private int _outstanding;
    private int _doubleReturns;

    /// <remarks>More than the framework's has, so that its user's large blocks are counted, too.</remarks>
    public override int MaxBufferSize => 64 * BlockSize;

    public int Outstanding => Volatile.Read(ref _outstanding);

    public long OutstandingBytes => Volatile.Read(ref _outstandingBytes);

    public int Rented => Volatile.Read(ref _rented);

    public int DoubleReturns => Volatile.Read(ref _doubleReturns);

    public override IMemoryOwner<byte> Rent(int minBufferSize = -1)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(minBufferSize, MaxBufferSize);
        var block = new Block(this, Math.Max(minBufferSize, BlockSize));
        Interlocked.Increment(ref _rented);
        Interlocked.Increment(ref _outstanding);
        Interlocked.Add(ref _outstandingBytes, block.Memory.Length);
        return block;
    }

    protected override void Dispose(bool disposing)
    {
    }

    private sealed class Block(CountingMemoryPool pool, int size) : IMemoryOwner<byte>
    {
        private byte[]? _bytes = GC.AllocateUninitializedArray<byte>(size, pinned: true);

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
            Interlocked.Add(ref pool._outstandingBytes, -bytes.Length);
            Interlocked.Decrement(ref pool._outstanding);
        }
    }
}

/// <summary>Gives out <see cref="CountingMemoryPool"/>s and adds them up.</summary>
internal sealed class CountingMemoryPoolFactory : IMemoryPoolFactory<byte>
{
    private readonly ConcurrentBag<CountingMemoryPool> _pools = [];

    public int Outstanding => _pools.Sum(static p => p.Outstanding);

    public long OutstandingBytes => _pools.Sum(static p => p.OutstandingBytes);

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
