using System.Buffers.Binary;

namespace Evio.Soak;

/// <summary>What clients ask of the callback server, and what it answers.</summary>
internal enum MessageKind : byte
{
    /// <summary>The client's first message: from now on the server knows the connection's identity.</summary>
    Hello = 1,

    /// <summary>The payload comes back, as <see cref="Echoed"/>.</summary>
    Echo,

    /// <summary>Another thread sends as many <see cref="Sent"/> as the argument says.</summary>
    Send,

    /// <summary>Another thread wakes the connection as often as the argument says; each wake is a <see cref="Woken"/>.</summary>
    Wake,

    /// <summary>A timer of the loop sends a <see cref="Timed"/>, after as many milliseconds as the argument says.</summary>
    Timer,

    /// <summary>A call that is posted to the loop, and blocks, sends a <see cref="Posted"/>.</summary>
    Post,

    /// <summary>The callback ends the connection.</summary>
    Close,

    /// <summary>Another thread ends the connection.</summary>
    CloseElsewhere,

    /// <summary>The callback ends the output.</summary>
    Shutdown,

    /// <summary>Another thread ends the output.</summary>
    ShutdownElsewhere,

    /// <summary>The connection is detached; its new owner sends a <see cref="Bye"/>.</summary>
    Detach,

    /// <summary>The callback throws.</summary>
    Throw,

    /// <summary>The callback about the end is to throw, Closed or Detached.</summary>
    ThrowAtEnd,

    /// <summary>The callback closes the connection whose identity is the argument.</summary>
    CloseOther,

    /// <summary>The next PreWrite closes the connection whose identity is the argument.</summary>
    CloseOtherBeforeWrite,

    /// <summary>A datagram's callback runs a call that blocks, before it answers.</summary>
    Invoke,

    /// <summary>From the connection's opening, with no identity: the client is not known yet.</summary>
    Greeting,
    Echoed,
    Sent,
    Woken,
    Timed,
    Posted,
    Bye,
}

/// <summary>
/// A message between the callback server and its clients. Its payload follows from its head, so that a byte of another connection, or from another place, shows.
/// </summary>
/// <param name="Connection">Whose it is.</param>
/// <param name="Kind">What it is.</param>
/// <param name="Number">Its place among those of the same kind and argument, from 0.</param>
/// <param name="Argument">What it is about.</param>
/// <param name="Length">The length of the payload.</param>
internal readonly record struct Message(long Connection, MessageKind Kind, int Number, long Argument = 0, int Length = 0)
{
    private const int HeadSize = 26;
    private const byte Mark = 0xE1;

    public int Size => HeadSize + Length;

    public byte[] ToBytes()
    {
        var bytes = new byte[Size];
        Write(bytes);
        return bytes;
    }

    /// <summary>Writes it to the beginning of <paramref name="room"/>.</summary>
    public void Write(Span<byte> room)
    {
        room[0] = Mark;
        BinaryPrimitives.WriteInt64LittleEndian(room[1..], Connection);
        room[9] = (byte)Kind;
        BinaryPrimitives.WriteInt32LittleEndian(room[10..], Number);
        BinaryPrimitives.WriteInt64LittleEndian(room[14..], Argument);
        BinaryPrimitives.WriteInt32LittleEndian(room[22..], Length);
        Fill(room.Slice(HeadSize, Length));
    }

    /// <summary>Takes a message off the beginning of <paramref name="data"/>, if all of it is there.</summary>
    /// <exception cref="SoakException">There is something else.</exception>
    public static bool TryRead(ref ReadOnlySpan<byte> data, out Message message)
    {
        message = default;
        if (data.Length > 0 && data[0] != Mark)
        {
            throw new SoakException($"a byte {data[0]} where a message must begin");
        }

        if (data.Length < HeadSize)
        {
            return false;
        }

        message = new Message(
            BinaryPrimitives.ReadInt64LittleEndian(data[1..]),
            (MessageKind)data[9],
            BinaryPrimitives.ReadInt32LittleEndian(data[10..]),
            BinaryPrimitives.ReadInt64LittleEndian(data[14..]),
            BinaryPrimitives.ReadInt32LittleEndian(data[22..]));
        if (message.Length is < 0 or > 16 * 1024 * 1024)
        {
            throw new SoakException($"a message of {message.Length} bytes");
        }

        if (data.Length < message.Size)
        {
            return false;
        }

        message.Check(data.Slice(HeadSize, message.Length));
        data = data[message.Size..];
        return true;
    }

    private void Check(ReadOnlySpan<byte> payload)
    {
        var expected = new byte[Length];
        Fill(expected);
        var common = payload.CommonPrefixLength(expected);
        if (common != Length)
        {
            throw new SoakException($"{Kind} {Number} of {Connection:x}: {Length} bytes, of which the first {common} are right");
        }
    }

    /// <summary>Makes the payload of it: xorshift64, started by the head.</summary>
    private void Fill(Span<byte> room)
    {
        var state = unchecked(((ulong)Connection * 0x9E3779B97F4A7C15) ^ ((ulong)Number << 8) ^ (ulong)Kind ^ ((ulong)Argument << 40)) | 1;
        for (; room.Length >= sizeof(ulong); room = room[sizeof(ulong)..])
        {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            BinaryPrimitives.WriteUInt64LittleEndian(room, state);
        }

        for (var i = 0; i < room.Length; i++)
        {
            room[i] = (byte)(state >> (8 * i));
        }
    }
}

/// <summary>Holds the answers that have come against those that must: whose they are, and their order.</summary>
internal sealed class Answers(long connection)
{
    private readonly Dictionary<(MessageKind, long), int> _expected = [];
    private readonly Dictionary<(MessageKind, long), int> _received = [];
    private int _missing;

    /// <summary>Whether everything has come that was asked for.</summary>
    public bool AreComplete => _missing == 0;

    /// <summary>What has not come, in words.</summary>
    public string Missing => string.Join(
        ", ", _expected.Where(entry => entry.Value > _received.GetValueOrDefault(entry.Key)).Select(entry => $"{entry.Value - _received.GetValueOrDefault(entry.Key)} {entry.Key.Item1}"));

    /// <summary>Notes that as many more answers must come.</summary>
    public void Expect(MessageKind kind, long argument, int count = 1)
    {
        _expected[(kind, argument)] = _expected.GetValueOrDefault((kind, argument)) + count;
        _missing += count;
    }

    /// <exception cref="SoakException">It is not this connection's, out of order or one too many.</exception>
    public void Receive(Message answer)
    {
        var isGreeting = answer.Kind == MessageKind.Greeting;
        if (answer.Connection != (isGreeting ? 0 : connection))
        {
            throw new SoakException($"{answer} on connection {connection:x}");
        }

        var key = (answer.Kind, answer.Argument);
        var received = _received.GetValueOrDefault(key);
        if (answer.Number != received)
        {
            throw new SoakException($"{answer} where number {received} must come");
        }

        if (!isGreeting && received >= _expected.GetValueOrDefault(key))
        {
            throw new SoakException($"{answer}, for which nothing asked");
        }

        _received[key] = received + 1;
        _missing -= isGreeting ? 0 : 1;
    }
}
