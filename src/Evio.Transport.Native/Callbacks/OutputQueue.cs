using System.Buffers;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// The output of a connection that the kernel has not taken yet, in order. Used by the connection's loop only, or by the thread of its
/// blocked callback.
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

    /// <summary>Appends a caller's memory, without a copy.</summary>
    internal void Append(PendingSend send)
    {
        send.Block = new OutputBlock { Memory = send.Data, Filled = send.Data.Length, Completion = send };
        Append(send.Block);
        Length += send.Data.Length;
    }

    /// <summary>Removes a caller's memory, unless a part of it was sent.</summary>
    internal bool TryWithdraw(PendingSend send)
    {
        if (send.Task.IsCompleted || send.Block is not { Sent: 0 } block)
        {
            return false;
        }

        Length -= block.Filled;
        send.Block = null;
        if (block.Previous is { } previous)
        {
            previous.Next = block.Next;
        }
        else
        {
            _head = block.Next;
        }

        if (block.Next is { } next)
        {
            next.Previous = block.Previous;
        }
        else
        {
            _tail = block.Previous;
        }

        return true;
    }

    /// <summary>Sends until the queue is empty or the kernel takes no more.</summary>
    /// <param name="channel">The connection's socket.</param>
    /// <param name="sent">The number of bytes that the kernel has taken.</param>
    /// <returns>The result of the last send. It would block if the rest waits for room in the kernel.</returns>
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

    /// <summary>Returns all blocks, and fails the sends that wait.</summary>
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

    /// <summary>Returns the blocks of an empty queue, so that an idle connection holds none, and completes empty sends.</summary>
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
        else
        {
            _head.Previous = null;
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

        // The kept blocks are the loop's, which a blocked callback has lost.
        using var owner = connection.Loop.Ownership.Enter();
        var block = owner.IsOwner ? blocks.Rent(owner, Math.Max(1, sizeHint)) : OutputBlocks.Create(Math.Max(1, sizeHint));
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
            block.Previous = _tail;
        }

        _tail = block;
    }

    [InlineArray(StreamSocket.MaxBuffers)]
    private struct MemoryArray
    {
        private ReadOnlyMemory<byte> _first;
    }
}
