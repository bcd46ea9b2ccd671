namespace Evio.Transport.Native;

/// <summary>
/// Puts the pieces of a request together: what one <see cref="Events.Data"/> could not use is kept and put before the next one's input.
/// evio's <c>InputStream</c>. Not thread-safe; one per connection, usually in <see cref="Connection.Context"/>.
/// </summary>
/// <example>
/// <code>
/// var data = stream.Begin(input);
/// while (TryParse(ref data, out var request)) { ... }   // data is advanced past each request
/// stream.End(data);
/// </code>
/// </example>
public sealed class InputStream
{
    /// <summary>A small buffer stays for the next time, a large one is not kept by a connection that may be idle from now on.</summary>
    private const int MaxKeptWhenEmpty = 1024;

    private byte[] _kept = [];
    private int _count;

    /// <summary>The number of bytes kept.</summary>
    public int Count => _count;

    /// <summary>Gives what was kept, followed by a packet.</summary>
    /// <param name="packet">The new input. When nothing was kept it is given back as it is, without a copy.</param>
    /// <returns>All that is unused so far; valid until the next call, and no longer than <paramref name="packet"/>.</returns>
    public ReadOnlySpan<byte> Begin(ReadOnlySpan<byte> packet)
    {
        if (_count == 0)
        {
            return packet;
        }

        Reserve(_count + packet.Length);
        packet.CopyTo(_kept.AsSpan(_count));
        _count += packet.Length;
        return _kept.AsSpan(0, _count);
    }

    /// <summary>Keeps what is unused.</summary>
    /// <param name="data">The end of what <see cref="Begin"/> gave, or anything else that is to come before the next packet.</param>
    public void End(ReadOnlySpan<byte> data)
    {
        if (data.IsEmpty)
        {
            _count = 0;
            if (_kept.Length > MaxKeptWhenEmpty)
            {
                _kept = [];
            }

            return;
        }

        if (data.Overlaps(_kept, out var offset))
        {
            // All of it: a large request that comes in many packets is not moved for each of them. Otherwise CopyTo allows for the overlap.
            if (offset != 0)
            {
                data.CopyTo(_kept);
            }
        }
        else
        {
            _count = 0;
            Reserve(data.Length);
            data.CopyTo(_kept);
        }

        _count = data.Length;
    }

    private void Reserve(int size)
    {
        if (size > _kept.Length)
        {
            var larger = new byte[Math.Max(size, Math.Max(256, (int)Math.Min(Array.MaxLength, _kept.Length * 2L)))];
            _kept.AsSpan(0, _count).CopyTo(larger);
            _kept = larger;
        }
    }
}
