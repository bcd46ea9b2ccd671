using System.Buffers;

namespace Evio.Transport.Native.Callbacks;

/// <summary>The reply to one datagram, while a callback writes it. Used by the loop only.</summary>
internal sealed class DatagramReply(EventLoop loop) : IBufferWriter<byte>
{
    /// <summary>The largest reply, as UDP over IPv4 can carry it: 65,535 bytes less the headers of IP and UDP (RFC 768, RFC 791).</summary>
    internal const int MaxLength = 65_507;

    // Larger than the largest reply, so that writers always find some room. A writer that has used that room is refused.
    private Memory<byte> _room;

    internal int Length { get; private set; }

    /// <summary>Begins a reply, in a buffer of <see cref="Sockets.DatagramBatch.RoomSize"/> bytes.</summary>
    internal void Begin(Memory<byte> room)
    {
        _room = room;
        Length = 0;
    }

    /// <summary>Ends the reply.</summary>
    internal void End()
    {
        _room = default;
        Length = 0;
    }

    public Memory<byte> GetMemory(int sizeHint = 0) => Rest(sizeHint);

    public Span<byte> GetSpan(int sizeHint = 0) => Rest(sizeHint).Span;

    public void Advance(int count)
    {
        if ((uint)count > (uint)(_room.Length - Length))
        {
            throw new ArgumentOutOfRangeException(nameof(count), count, "More than the memory that was given out.");
        }

        if (!loop.IsCurrent)
        {
            // Otherwise the reply would contain older bytes of the buffer, which belong to others.
            throw NotInCallback();
        }

        if (Length + count > MaxLength)
        {
            throw TooLarge();
        }

        Length += count;
    }

    private Memory<byte> Rest(int sizeHint)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(sizeHint);
        if (_room.IsEmpty || !loop.IsCurrent)
        {
            throw NotInCallback();
        }

        return sizeHint <= _room.Length - Length ? _room[Length..] : throw TooLarge();
    }

    private static InvalidOperationException NotInCallback() => new("The reply to a datagram is written in the callback that gets it, on its loop.");

    private static InvalidOperationException TooLarge() =>
        new($"What a callback writes to a UDP peer is one datagram, which cannot have more than {MaxLength} bytes.");
}
