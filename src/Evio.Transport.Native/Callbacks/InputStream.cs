namespace Evio.Transport.Native;

/// <summary>
/// Joins the pieces of a request: input that one <see cref="Events.Data"/> could not use is kept, and put before the input of the next one.
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
    /// <summary>
    /// The largest buffer in bytes that is kept for the next time. A connection that may be idle from now on does not keep a larger one.
    /// </summary>
    private const int MaxKeptWhenEmpty = 1024;

    private byte[] _kept = [];
    private int _count;

    /// <summary>The number of bytes kept.</summary>
    public int Count => _count;

    /// <summary>Returns the kept bytes, followed by a packet.</summary>
    /// <param name="packet">The new input. When nothing was kept, it is returned as it is, without a copy.</param>
    /// <returns>
    /// All bytes that are unused so far. They are valid until the next call, and no longer than <paramref name="packet"/> is.
    /// </returns>
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

    /// <summary>Keeps the unused bytes.</summary>
    /// <param name="data">
    /// The end of the span that <see cref="Begin"/> returned, or any other bytes that are to come before the next packet.
    /// </param>
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
            // At offset 0, all bytes are kept and none is moved, because a large request may come in many packets. Otherwise CopyTo allows
            // for the overlap.
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
