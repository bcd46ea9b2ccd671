using System.Buffers;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport.Tests.Connections;

/// <summary>
/// A pool that can hold the next thread that is about to use one of its blocks, just before the system call that reads or fills it. It counts what must not happen meanwhile.
/// </summary>
internal sealed class HoldingPool : MemoryPool<byte>, IMemoryPoolFactory<byte>
{
    private const int BlockSize = 4096;
    private readonly ManualResetEventSlim _released = new();
    private TaskCompletionSource? _next;
    private int _outstanding;
    private int _errors;
    private bool _disposed;

    public override int MaxBufferSize => 64 * BlockSize;

    internal int Outstanding => Volatile.Read(ref _outstanding);

    /// <summary>How often a block was given back while a thread used it, twice, or after the pool's disposal, and how often one was rented after that.</summary>
    internal int Errors => Volatile.Read(ref _errors);

    internal bool IsDisposed => Volatile.Read(ref _disposed);

    /// <summary>Holds the next thread that uses a block.</summary>
    /// <returns>Completes when one is held.</returns>
    internal Task HoldNextUse()
    {
        var held = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Volatile.Write(ref _next, held);
        return held.Task;
    }

    internal void Release() => _released.Set();

    public MemoryPool<byte> Create(MemoryPoolOptions? options = null) => this;

    public override IMemoryOwner<byte> Rent(int minBufferSize = -1)
    {
        if (IsDisposed)
        {
            Interlocked.Increment(ref _errors);
        }

        Interlocked.Increment(ref _outstanding);
        return new Block(this, Math.Max(minBufferSize, BlockSize));
    }

    protected override void Dispose(bool disposing)
    {
        if (Outstanding > 0)
        {
            Interlocked.Increment(ref _errors);
        }

        Volatile.Write(ref _disposed, true);
    }

    private sealed class Block(HoldingPool pool, int size) : MemoryManager<byte>
    {
        private readonly byte[] _bytes = GC.AllocateUninitializedArray<byte>(size, pinned: true);
        private int _users;
        private int _isBack;

        public override Span<byte> GetSpan()
        {
            if (Volatile.Read(ref pool._next) is not null && Interlocked.Exchange(ref pool._next, null) is { } held)
            {
                Interlocked.Increment(ref _users);
                held.SetResult();
                pool._released.Wait();
                Interlocked.Decrement(ref _users);
            }

            return _bytes;
        }

        public override MemoryHandle Pin(int elementIndex = 0) => throw new NotSupportedException();

        public override void Unpin()
        {
        }

        protected override void Dispose(bool disposing)
        {
            if (Interlocked.Exchange(ref _isBack, 1) != 0 || Volatile.Read(ref _users) > 0 || pool.IsDisposed)
            {
                Interlocked.Increment(ref pool._errors);
            }

            Interlocked.Decrement(ref pool._outstanding);
        }
    }
}
