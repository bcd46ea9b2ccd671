using System.Buffers;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// A connection's output that the kernel has not taken yet, in order. Only the connection's loop touches it, or the thread of its late callback.
/// </summary>
internal sealed class OutputQueue(OutputBlocks blocks, StreamConnection connection) : IBufferWriter<byte>
{
    private OutputBlock? _head;
    private OutputBlock? _tail;

    /// <summary>The number of bytes in the queue.</summary>
    internal long Length { get; private set; }

    public Memory<byte> GetMemory(int sizeHint = 0)
    {
        var block = BlockWithRoom(sizeHint);
        return block.Array.AsMemory(block.Filled);
    }

    public Span<byte> GetSpan(int sizeHint = 0)
    {
        var block = BlockWithRoom(sizeHint);
        return block.Array.AsSpan(block.Filled);
    }

    public void Advance(int count)
    {
        if ((uint)count > (uint)(_tail?.Array is { } array ? array.Length - _tail.Filled : 0))
        {
            throw new ArgumentOutOfRangeException(nameof(count), count, "More than the memory that was given out.");
        }

        if (count > 0)
        {
            _tail!.Filled += count;
            Length += count;
        }
    }

    /// <summary>Adds somebody else's memory, without a copy.</summary>
    internal void Append(ReadOnlyMemory<byte> memory, TaskCompletionSource completion)
    {
        Append(new OutputBlock { Memory = memory, Filled = memory.Length, Completion = completion });
        Length += memory.Length;
    }

    /// <summary>Sends until the queue is empty or the kernel takes no more.</summary>
    /// <param name="channel">Where to.</param>
    /// <param name="sent">How many bytes were taken.</param>
    /// <returns>The result of the last send; one that would block, if the rest has to wait for room.</returns>
    internal IoResult SendTo(IStreamChannel channel, out long sent)
    {
        sent = 0;
        var result = IoResult.FromCount(0);
        while (Length > 0)
        {
            long offered;
            if (_head == _tail)
            {
                var span = _head!.Memory.Span[_head.Sent.._head.Filled];
                offered = span.Length;
                result = channel.Send(span);
            }
            else
            {
                result = SendSeveral(channel, out offered);
            }

            sent += result.Count;
            Remove(result.Count);
            if (!result.IsSuccess)
            {
                return result;
            }

            if (result.Count < offered)
            {
                return IoResult.WouldBlockResult;
            }
        }

        Release();
        return result;
    }

    /// <summary>Gives all blocks back and fails what waits for them to be sent.</summary>
    internal void Discard(Exception reason)
    {
        while (_head is { } head)
        {
            _head = head.Next;
            head.Completion?.TrySetException(reason);
            blocks.Return(head);
        }

        _tail = null;
        Length = 0;
    }

    private IoResult SendSeveral(IStreamChannel channel, out long offered)
    {
        var memories = new MemoryArray();
        var count = 0;
        offered = 0;
        for (var block = _head; block is not null && count < StreamSocket.MaxBuffers; block = block.Next)
        {
            if (block.Filled > block.Sent)
            {
                memories[count++] = block.Memory[block.Sent..block.Filled];
                offered += block.Filled - block.Sent;
            }
        }

        return channel.Send(((ReadOnlySpan<ReadOnlyMemory<byte>>)memories)[..count]);
    }

    private void Remove(int count)
    {
        Length -= count;
        while (_head is { } head)
        {
            var taken = Math.Min(count, head.Filled - head.Sent);
            head.Sent += taken;
            count -= taken;
            if (head.Sent < head.Filled || (head == _tail && head.Completion is null))
            {
                return;
            }

            RemoveHead();
        }
    }

    /// <summary>Gives the last block back: an idle connection holds none. Empty memory of somebody else's counts as sent.</summary>
    internal void Release()
    {
        while (_head is not null)
        {
            RemoveHead();
        }
    }

    private void RemoveHead()
    {
        var head = _head!;
        _head = head.Next;
        if (_head is null)
        {
            _tail = null;
        }

        head.Completion?.TrySetResult();
        blocks.Return(head);
    }

    private OutputBlock BlockWithRoom(int sizeHint)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(sizeHint);
        if (connection.IsOver)
        {
            throw StreamConnection.IsOverException();
        }

        if (!connection.MayBeWritten)
        {
            throw new InvalidOperationException(
                $"Output is written in the connection's callbacks, on its loop; from elsewhere use {nameof(Connection.SendAsync)}.");
        }

        if (_tail?.Array is { } array && array.Length - _tail.Filled >= Math.Max(1, sizeHint))
        {
            return _tail;
        }

        // The blocks are the loop's, which a callback that takes long may have lost.
        using var owner = connection.Loop.Ownership.Enter();
        var block = owner.IsOwner ? blocks.Rent(Math.Max(1, sizeHint)) : OutputBlocks.Create(Math.Max(1, sizeHint));
        Append(block);
        return block;
    }

    private void Append(OutputBlock block)
    {
        if (_tail is null)
        {
            _head = block;
        }
        else
        {
            _tail.Next = block;
        }

        _tail = block;
    }

    [InlineArray(StreamSocket.MaxBuffers)]
    private struct MemoryArray
    {
        private ReadOnlyMemory<byte> _first;
    }
}
