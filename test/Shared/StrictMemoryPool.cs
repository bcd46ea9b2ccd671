using System.Buffers;
using System.Collections.Concurrent;
using System.Diagnostics;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport.Testing;

/// <summary>A pool that notes whatever a user of its blocks may not do, and knows how many blocks and bytes are out.</summary>
/// <remarks>
/// A block must come back once, before the pool's end, and nobody may write to it later. A block always goes back to its own pool; one that came from elsewhere
/// cannot be given to it.
/// </remarks>
internal sealed class StrictMemoryPool(StrictMemoryPoolFactory factory, int maxBufferSize) : MemoryPool<byte>
{
    /// <summary>The size of the framework's blocks, which has no larger ones.</summary>
    internal const int BlockSize = 4096;

    /// <summary>For pools that are to count the large blocks of their users as well.</summary>
    internal const int LargeBlocks = 64 * BlockSize;

    private const byte Returned = 0xDD;

    /// <summary>How many of the blocks that came back are looked at later.</summary>
    private const int MaxWatched = 32;

    private readonly ConcurrentDictionary<Block, bool> _out = new();
    private readonly ConcurrentQueue<(Block Block, byte[] Bytes)> _watched = new();
    private int _rented;
    private long _outstandingBytes;
    private volatile bool _disposed;

    public override int MaxBufferSize => maxBufferSize;

    public int Outstanding => _out.Count;

    public long OutstandingBytes => Volatile.Read(ref _outstandingBytes);

    public int Rented => Volatile.Read(ref _rented);

    public override IMemoryOwner<byte> Rent(int minBufferSize = -1)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(minBufferSize, MaxBufferSize);
        if (_disposed)
        {
            factory.Note($"A block was rented after the pool's end, by\n{new StackTrace()}");
            throw new ObjectDisposedException(nameof(StrictMemoryPool));
        }

        var block = new Block(this, Math.Max(minBufferSize, BlockSize));
        Interlocked.Increment(ref _rented);
        Interlocked.Add(ref _outstandingBytes, block.Memory.Length);
        _out[block] = true;
        return block;
    }

    /// <summary>Looks at the blocks that have come back last.</summary>
    internal void CheckReturned()
    {
        while (_watched.TryDequeue(out var watched))
        {
            Check(watched.Block, watched.Bytes);
        }
    }

    /// <exception cref="InvalidOperationException">Blocks are out.</exception>
    protected override void Dispose(bool disposing)
    {
        _disposed = true;
        CheckReturned();
        var blocks = _out.Keys;
        foreach (var block in blocks)
        {
            factory.Note($"A block was out at the pool's end. It was rented by\n{block.Renter}");
        }

        if (blocks.Count > 0)
        {
            throw new InvalidOperationException($"{blocks.Count} blocks of the pool are out.");
        }
    }

    private void Return(Block block, byte[] bytes)
    {
        if (_disposed)
        {
            factory.Note($"A block came back after the pool's end, from\n{new StackTrace()}\nIt was rented by\n{block.Renter}");
        }

        // Whoever still reads the block must not find the right content by luck.
        Array.Fill(bytes, Returned);
        Interlocked.Add(ref _outstandingBytes, -bytes.Length);
        _out.TryRemove(block, out _);
        _watched.Enqueue((block, bytes));
        if (_watched.Count > MaxWatched && _watched.TryDequeue(out var watched))
        {
            Check(watched.Block, watched.Bytes);
        }
    }

    private void Check(Block block, byte[] bytes)
    {
        if (bytes.AsSpan().ContainsAnyExcept(Returned))
        {
            factory.Note($"A block was written to after it had come back. It was rented by\n{block.Renter}");
        }
    }

    private sealed class Block(StrictMemoryPool pool, int size) : IMemoryOwner<byte>
    {
        private byte[]? _bytes = GC.AllocateUninitializedArray<byte>(size, pinned: true);

        /// <summary>Who has rented it.</summary>
        public StackTrace Renter { get; } = new(skipFrames: 2);

        public Memory<byte> Memory => _bytes ?? throw new ObjectDisposedException(nameof(Block), "The block is back in the pool.");

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _bytes, null) is { } bytes)
            {
                pool.Return(this, bytes);
            }
            else
            {
                pool.NoteSecondReturn(this);
            }
        }
    }

    private void NoteSecondReturn(Block block) => factory.NoteDouble($"A block came back twice, now from\n{new StackTrace()}\nIt was rented by\n{block.Renter}");
}

/// <summary>Gives out <see cref="StrictMemoryPool"/>s, adds them up, and keeps what they note.</summary>
/// <param name="maxBufferSize">The largest block: that of the framework, or <see cref="StrictMemoryPool.LargeBlocks"/>.</param>
internal sealed class StrictMemoryPoolFactory(int maxBufferSize = StrictMemoryPool.BlockSize) : IMemoryPoolFactory<byte>
{
    private readonly ConcurrentBag<StrictMemoryPool> _pools = [];
    private readonly ConcurrentQueue<string> _violations = new();
    private int _doubleReturns;

    public int Outstanding => _pools.Sum(static p => p.Outstanding);

    public long OutstandingBytes => _pools.Sum(static p => p.OutstandingBytes);

    public int Rented => _pools.Sum(static p => p.Rented);

    public int DoubleReturns => Volatile.Read(ref _doubleReturns);

    /// <summary>What was done with blocks that may not be done.</summary>
    public IReadOnlyCollection<string> Violations => _violations;

    public MemoryPool<byte> Create(MemoryPoolOptions? options = null)
    {
        var pool = new StrictMemoryPool(this, maxBufferSize);
        _pools.Add(pool);
        return pool;
    }

    /// <summary>How many of the pools made here <paramref name="pool"/> is: one or none.</summary>
    public int Owning(MemoryPool<byte> pool) => _pools.Count(made => ReferenceEquals(made, pool));

    /// <summary>Fails the test if there is anything in <see cref="Violations"/>.</summary>
    public void AssertKept()
    {
        foreach (var pool in _pools)
        {
            pool.CheckReturned();
        }

        Assert.True(_violations.IsEmpty, string.Join("\n\n", _violations.Take(3)));
    }

    internal void Note(string violation) => _violations.Enqueue(violation);

    internal void NoteDouble(string violation)
    {
        Interlocked.Increment(ref _doubleReturns);
        Note(violation);
    }
}
