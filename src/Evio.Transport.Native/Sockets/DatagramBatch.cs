using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// The memory of a <see cref="DatagramSocket"/>: room for the datagrams that one recvmmsg(2) brings, with their senders, and for the replies
/// that one sendmmsg(2) takes.
/// </summary>
/// <remarks>
/// All of it is in arrays that are pinned for good. They live as long as the batch is reachable, so nothing that still uses the batch after the socket's
/// close can use memory that was freed. A datagram gets 64 KiB of room, so that none is ever cut short. The arrays are not cleared: the process pays only for
/// the pages that datagrams have filled. The memory of replies is given to user code, which may keep it by mistake.
/// </remarks>
internal sealed unsafe class DatagramBatch
{
    /// <summary>The most datagrams of a batch.</summary>
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

    /// <param name="isTold">Whether the socket is told which address each datagram came to (<see cref="PacketInfo"/>).</param>
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
    internal bool HasReplyRoom => ReplyBufferSize - _replyBytes >= RoomSize;

    /// <summary>Where the next reply is to be written.</summary>
    internal Memory<byte> ReplyRoom => _replyBuffer.AsMemory(_replyBytes, RoomSize);

    /// <summary>Receives as many datagrams as wait, up to <see cref="Capacity"/>, and forgets those of before, and replies to them.</summary>
    /// <returns>Their number, or why there are none.</returns>
    internal IoResult Receive(int descriptor)
    {
        // A reply of before would be sent to the sender of the datagram that takes the place of its own.
        ClearReplies();
        for (var i = 0; i < Capacity; i++)
        {
            // The kernel has overwritten them with the lengths of what it wrote.
            _datagrams[i].Header.NameLength = SizeOfAddress;
            _datagrams[i].Header.ControlLength = (nuint)_toldSize;
        }

        // SAFETY: all that the messages point to is in this object's pinned arrays, and the vectors' lengths are those of their parts.
        var count = SocketCalls.ReceiveMessages(descriptor, PointerTo(_datagrams), Capacity);
        var result = count >= 0 ? IoResult.FromCount(count) : IoResult.FromError(Errno.Last);
        Count = result.Count;
        return result;
    }

    /// <summary>What a datagram carries; valid until the next <see cref="Receive"/>.</summary>
    internal ReadOnlySpan<byte> GetDatagram(int index)
    {
        ThrowUnlessReceived(index);
        return _buffer.AsSpan(index * RoomSize, RoomSize)[..(int)_datagrams[index].Length];
    }

    /// <summary>Who sent a datagram, as a <c>sockaddr</c>; valid until the next <see cref="Receive"/>.</summary>
    internal ReadOnlySpan<byte> GetSender(int index)
    {
        ThrowUnlessReceived(index);

        // A longer address would have been cut to the room's size, but its length is reported in full (recvmsg(2)).
        return _senders.AsSpan(index * SizeOfAddress, (int)Math.Min(_datagrams[index].Header.NameLength, SizeOfAddress));
    }

    /// <summary>Where a datagram came to, if the socket is told; valid until the next <see cref="Receive"/>.</summary>
    internal PacketInfo GetPacketInfo(int index)
    {
        ThrowUnlessReceived(index);

        // Where the length has only 32 bits, the flags stand behind it (MessageHeader).
        var length = Math.Min((uint)_datagrams[index].Header.ControlLength, (uint)_toldSize);
        return PacketInfoFormat.Current.Read(_told.AsSpan(index * _toldSize, (int)length));
    }

    /// <summary>Adds what was written to <see cref="ReplyRoom"/> as the reply to a datagram.</summary>
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
            // Who asked one address does not take an answer from another one.
            var size = PacketInfoFormat.Current.Write(_asked.AsSpan(ReplyCount * _toldSize, _toldSize), GetPacketInfo(index));
            reply.Control = size > 0 ? PointerTo(_asked) + (ReplyCount * _toldSize) : null;
            reply.ControlLength = (nuint)size;
        }

        // SAFETY: the array is pinned for good, and has that many bytes behind those of the replies before.
        _vectors[Capacity + ReplyCount] = new IoVector { Base = PointerTo(_replyBuffer) + _replyBytes, Length = (nuint)length };
        ReplyCount++;
        _replyBytes += length;
    }

    /// <summary>Sends the replies from one on, as far as the kernel takes them.</summary>
    /// <returns>How many it took, or why it did not take the first.</returns>
    internal IoResult Send(int descriptor, int start)
    {
        ThrowUnlessReply(start);

        // SAFETY: as in Receive; there are that many replies from the first one on.
        var count = SocketCalls.SendMessages(descriptor, PointerTo(_replies) + start, ReplyCount - start);
        var result = count >= 0 ? IoResult.FromCount(count) : IoResult.FromError(Errno.Last);
        GC.KeepAlive(this);
        return result;
    }

    /// <summary>Leaves a reply's source to the system.</summary>
    /// <returns>False when it was so before.</returns>
    internal bool TryForgetSource(int index)
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

    /// <summary>Forgets the replies.</summary>
    internal void ClearReplies()
    {
        ReplyCount = 0;
        _replyBytes = 0;
    }

    private void ThrowUnlessReceived(int index) => ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)Count, nameof(index));

    private void ThrowUnlessReply(int index) => ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)ReplyCount, nameof(index));

    // SAFETY: for arrays that are pinned for good, and used while this object is reachable.
    private static T* PointerTo<T>(T[] pinned)
        where T : unmanaged => (T*)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(pinned));
}
