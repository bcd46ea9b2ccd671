using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// The memory of a <see cref="DatagramSocket"/>: room for the datagrams that one recvmmsg(2) brings, with their senders, and for the replies
/// that one sendmmsg(2) takes.
/// </summary>
/// <remarks>
/// What is received into is native memory, 64 KiB for each datagram so that none is ever cut short, of which the kernel touches, and the
/// process pays for, only the pages that datagrams have filled. The replies stand one after the other in an array, since memory of it is given
/// to user code, and must stay memory for whoever keeps it by mistake.
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

    private readonly byte[] _replyBuffer = GC.AllocateUninitializedArray<byte>(ReplyBufferSize, pinned: true);
    private MessageSlot* _datagrams;
    private MessageSlot* _replies;
    private IoVector* _vectors;
    private byte* _senders;
    private byte* _buffers;
    private int _replyBytes;

    internal DatagramBatch()
    {
        _datagrams = (MessageSlot*)NativeMemory.AllocZeroed(2 * Capacity, (nuint)sizeof(MessageSlot));
        _replies = _datagrams + Capacity;
        _vectors = (IoVector*)NativeMemory.AllocZeroed(2 * Capacity, (nuint)sizeof(IoVector));
        _senders = (byte*)NativeMemory.AllocZeroed(Capacity, SizeOfAddress);
        _buffers = (byte*)NativeMemory.Alloc(Capacity, RoomSize);
        for (var i = 0; i < Capacity; i++)
        {
            _vectors[i] = new IoVector { Base = _buffers + ((nint)i * RoomSize), Length = RoomSize };
            _datagrams[i].Header = new MessageHeader { Name = _senders + (i * SizeOfAddress), Vectors = _vectors + i, VectorCount = 1 };
            _replies[i].Header = new MessageHeader { Vectors = _vectors + Capacity + i, VectorCount = 1 };
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

    /// <summary>Receives as many datagrams as wait, up to <see cref="Capacity"/>, and forgets those of before.</summary>
    /// <returns>Their number, or why there are none.</returns>
    internal IoResult Receive(int descriptor)
    {
        Debug.Assert(ReplyCount == 0, "Replies need the addresses of the datagrams that they answer.");
        for (var i = 0; i < Capacity; i++)
        {
            // The kernel has overwritten it with the length of the address.
            _datagrams[i].Header.NameLength = SizeOfAddress;
        }

        // SOUND: all that the messages point to is native memory of this object, which only its loop uses and frees.
        var count = SocketCalls.ReceiveMessages(descriptor, _datagrams, Capacity);
        var result = count >= 0 ? IoResult.FromCount(count) : IoResult.FromError(Errno.Last);
        Count = result.Count;
        return result;
    }

    /// <summary>What a datagram carries; valid until the next <see cref="Receive"/>.</summary>
    internal ReadOnlySpan<byte> GetDatagram(int index)
    {
        Debug.Assert((uint)index < (uint)Count);

        // SOUND: the kernel wrote no more than the room's size, and says how much.
        return new ReadOnlySpan<byte>(_vectors[index].Base, (int)_datagrams[index].Length);
    }

    /// <summary>Who sent a datagram, as a <c>sockaddr</c>; valid until the next <see cref="Receive"/>.</summary>
    internal ReadOnlySpan<byte> GetSender(int index)
    {
        Debug.Assert((uint)index < (uint)Count);

        // SOUND: a longer address would have been cut to the room's size, but its length is reported in full (recvmsg(2)).
        return new ReadOnlySpan<byte>(_datagrams[index].Header.Name, (int)Math.Min(_datagrams[index].Header.NameLength, SizeOfAddress));
    }

    /// <summary>Adds what was written to <see cref="ReplyRoom"/> as the reply to a datagram.</summary>
    internal void AddReply(int index, int length)
    {
        Debug.Assert((uint)index < (uint)Count && ReplyCount < Capacity && (uint)length <= RoomSize && HasReplyRoom);
        ref var datagram = ref _datagrams[index].Header;
        ref var reply = ref _replies[ReplyCount++].Header;
        reply.Name = datagram.Name;
        reply.NameLength = datagram.NameLength;

        // SOUND: the array is pinned for good, and HasReplyRoom was asked before the reply was written.
        reply.Vectors->Base = (byte*)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(_replyBuffer)) + _replyBytes;
        reply.Vectors->Length = (nuint)length;
        _replyBytes += length;
    }

    /// <summary>Sends the replies from one on, as far as the kernel takes them.</summary>
    /// <returns>How many it took, or why it did not take the first.</returns>
    internal IoResult Send(int descriptor, int start)
    {
        Debug.Assert(start < ReplyCount);

        // SOUND: as in Receive; the replies' array is pinned.
        var count = SocketCalls.SendMessages(descriptor, _replies + start, ReplyCount - start);
        return count >= 0 ? IoResult.FromCount(count) : IoResult.FromError(Errno.Last);
    }

    /// <summary>The length of a reply that waits.</summary>
    internal int GetReplyLength(int index) => (int)_replies[index].Header.Vectors->Length;

    /// <summary>Forgets the replies.</summary>
    internal void ClearReplies()
    {
        ReplyCount = 0;
        _replyBytes = 0;
    }

    /// <summary>Frees the native memory. Nothing else may be called after it.</summary>
    internal void Free()
    {
        NativeMemory.Free(_datagrams);
        NativeMemory.Free(_vectors);
        NativeMemory.Free(_senders);
        NativeMemory.Free(_buffers);
        _datagrams = _replies = null;
        _vectors = null;
        _senders = _buffers = null;
        Count = 0;
    }
}
