using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// The memory of a <see cref="DatagramSocket"/>: room for the datagrams of one recvmmsg(2) and their senders, and for the replies of one
/// sendmmsg(2).
/// </summary>
/// <remarks>
/// All memory is in arrays that are pinned for good. They live as long as the batch is reachable, so code that still uses the batch after
/// the socket's close never uses freed memory. That includes user code, which gets the memory of replies and may keep it by mistake. A
/// datagram gets 64 KiB of room, so that none is ever cut short. The arrays are not cleared: the process pays only for the pages that
/// datagrams have filled.
/// </remarks>
internal sealed unsafe class DatagramBatch
{
    /// <summary>The largest number of datagrams of a batch.</summary>
    internal const int Capacity = 32;

    /// <summary>Room for one datagram: the largest has 65,535 bytes with its headers.</summary>
    internal const int RoomSize = 64 * 1024;

    private const int SizeOfAddress = SocketAddressBytes.Size;

    /// <summary>Room for a batch of small replies, and for a few of the largest.</summary>
    private const int ReplyBufferSize = 4 * RoomSize;

    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(Capacity * RoomSize, pinned: true);
    private readonly byte[] _replyBuffer = GC.AllocateUninitializedArray<byte>(ReplyBufferSize, pinned: true);
    private readonly byte[] _senders = GC.AllocateArray<byte>(Capacity * SizeOfAddress, pinned: true);
    private readonly MessageSlot[] _datagrams = GC.AllocateArray<MessageSlot>(Capacity, pinned: true);
    private readonly MessageSlot[] _replies = GC.AllocateArray<MessageSlot>(Capacity, pinned: true);
    private readonly byte[] _told;
    private readonly byte[] _asked;
    private readonly int _toldSize;
    private readonly IoVector[] _vectors = GC.AllocateArray<IoVector>(2 * Capacity, pinned: true);
    private int _replyBytes;

    /// <param name="isTold">Whether the system reports the destination of each datagram (<see cref="PacketInfo"/>).</param>
    internal DatagramBatch(bool isTold = false)
    {
        _toldSize = isTold ? PacketInfoFormat.MaxSize : 0;
        _told = GC.AllocateArray<byte>(Capacity * _toldSize, pinned: true);
        _asked = GC.AllocateArray<byte>(Capacity * _toldSize, pinned: true);
        var vectors = PointerTo(_vectors);
        for (var i = 0; i < Capacity; i++)
        {
            _vectors[i] = new IoVector { Base = PointerTo(_buffer) + (i * RoomSize), Length = RoomSize };
            _datagrams[i].Header = new MessageHeader { Name = PointerTo(_senders) + (i * SizeOfAddress), Vectors = vectors + i, VectorCount = 1 };
            _datagrams[i].Header.Control = isTold ? PointerTo(_told) + (i * _toldSize) : null;
            _replies[i].Header = new MessageHeader { Vectors = vectors + Capacity + i, VectorCount = 1 };
        }
    }

    /// <summary>The number of datagrams of the last <see cref="Receive"/>.</summary>
    internal int Count { get; private set; }

    /// <summary>The number of replies that wait for <see cref="Send"/>.</summary>
    internal int ReplyCount { get; private set; }

    /// <summary>Whether there is room for a reply of any size.</summary>
    internal bool HasReplySpace => ReplyBufferSize - _replyBytes >= RoomSize;

    /// <summary>The memory for the next reply.</summary>
    internal Memory<byte> ReplyBuffer => _replyBuffer.AsMemory(_replyBytes, RoomSize);

    /// <summary>
    /// Receives the waiting datagrams, up to <see cref="Capacity"/>. The datagrams of the last call and the replies to them are dropped.
    /// </summary>
    /// <returns>The number of datagrams, or the reason why there are none.</returns>
    internal IoResult Receive(int descriptor)
    {
        // An old reply would be sent to the sender of the new datagram in the same place.
        ClearReplies();
        for (var i = 0; i < Capacity; i++)
        {
            // The kernel has overwritten these fields with the lengths of what it wrote.
            _datagrams[i].Header.NameLength = SizeOfAddress;
            _datagrams[i].Header.ControlLength = (nuint)_toldSize;
        }

        // SAFETY: all that the messages point to is in this object's pinned arrays, and the vectors' lengths are those of their parts.
        var count = SocketCalls.ReceiveMessages(descriptor, PointerTo(_datagrams), Capacity);
        var result = count >= 0 ? IoResult.FromCount(count) : IoResult.FromError(Errno.Last);
        Count = result.Count;
        return result;
    }

    /// <summary>The content of a datagram; valid until the next <see cref="Receive"/>.</summary>
    internal ReadOnlySpan<byte> GetDatagram(int index)
    {
        ThrowUnlessReceived(index);
        return _buffer.AsSpan(index * RoomSize, RoomSize)[..(int)_datagrams[index].Length];
    }

    /// <summary>The sender of a datagram, as a <c>sockaddr</c>; valid until the next <see cref="Receive"/>.</summary>
    internal ReadOnlySpan<byte> GetSender(int index)
    {
        ThrowUnlessReceived(index);

        // A longer address would have been cut to the room's size, but its length is reported in full (recvmsg(2)).
        return _senders.AsSpan(index * SizeOfAddress, (int)Math.Min(_datagrams[index].Header.NameLength, SizeOfAddress));
    }

    /// <summary>The destination of a datagram, if the system reports it; valid until the next <see cref="Receive"/>.</summary>
    internal PacketInfo GetPacketInfo(int index)
    {
        ThrowUnlessReceived(index);

        // On systems where the length has only 32 bits, the upper half has the flags (MessageHeader).
        var length = Math.Min((uint)_datagrams[index].Header.ControlLength, (uint)_toldSize);
        return PacketInfoFormat.Current.Read(_told.AsSpan(index * _toldSize, (int)length));
    }

    /// <summary>Adds what was written to <see cref="ReplyBuffer"/> as the reply to a datagram.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such datagram, or no room for the reply.</exception>
    internal void AddReply(int index, int length)
    {
        ThrowUnlessReceived(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)length, (uint)Math.Min(RoomSize, ReplyBufferSize - _replyBytes), nameof(length));
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(ReplyCount, Capacity);
        ref var datagram = ref _datagrams[index].Header;
        ref var reply = ref _replies[ReplyCount].Header;
        reply.Name = datagram.Name;
        reply.NameLength = datagram.NameLength;
        if (_toldSize > 0)
        {
            // A client that has sent to one address does not accept a reply from another one.
            var size = PacketInfoFormat.Current.Write(_asked.AsSpan(ReplyCount * _toldSize, _toldSize), GetPacketInfo(index));
            reply.Control = size > 0 ? PointerTo(_asked) + (ReplyCount * _toldSize) : null;
            reply.ControlLength = (nuint)size;
        }

        // SAFETY: the array is pinned for good, and has that many bytes after those of the earlier replies.
        _vectors[Capacity + ReplyCount] = new IoVector { Base = PointerTo(_replyBuffer) + _replyBytes, Length = (nuint)length };
        ReplyCount++;
        _replyBytes += length;
    }

    /// <summary>Sends the replies from <paramref name="start"/> on, as far as the kernel takes them.</summary>
    /// <returns>The number of replies that it took, or the reason why it did not take the first one.</returns>
    internal IoResult Send(int descriptor, int start)
    {
        ThrowUnlessReply(start);

        // SAFETY: as in Receive; there are that many replies from the first one on.
        var count = SocketCalls.SendMessages(descriptor, PointerTo(_replies) + start, ReplyCount - start);
        var result = count >= 0 ? IoResult.FromCount(count) : IoResult.FromError(Errno.Last);
        GC.KeepAlive(this);
        return result;
    }

    /// <summary>Lets the system choose the source of a reply.</summary>
    /// <returns>False when the system chooses it already.</returns>
    internal bool TryClearSource(int index)
    {
        ThrowUnlessReply(index);
        ref var reply = ref _replies[index].Header;
        if (reply.ControlLength == 0)
        {
            return false;
        }

        reply.Control = null;
        reply.ControlLength = 0;
        return true;
    }

    /// <summary>The length of a reply that waits.</summary>
    internal int GetReplyLength(int index)
    {
        ThrowUnlessReply(index);
        return (int)_vectors[Capacity + index].Length;
    }

    /// <summary>Drops the replies.</summary>
    internal void ClearReplies()
    {
        ReplyCount = 0;
        _replyBytes = 0;
    }

    private void ThrowUnlessReceived(int index) => ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)Count, nameof(index));

    private void ThrowUnlessReply(int index) => ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)ReplyCount, nameof(index));

    // SAFETY: the arrays are pinned for good, and the pointers are used only while this object is reachable.
    private static T* PointerTo<T>(T[] pinned)
        where T : unmanaged => (T*)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(pinned));
}
