using Evio.Transport.Native;

namespace Evio.Fuzz;

/// <summary>Whatever comes in packets, and however much of it is used each time: every byte is given in its turn until it is used, and never after.</summary>
/// <remarks>An input is a program: each step has two bytes for the length of a packet, one for how much is used, and one for what is kept.</remarks>
internal static class InputStreamTarget
{
    private const int LongestPacket = 8 * 1024;
    private const int MostKept = 256 * 1024;

    public static void Run(ReadOnlySpan<byte> input)
    {
        var stream = new InputStream();

        // What the stream must give next.
        var unused = new List<byte>();

        // As in a loop, whose one buffer the next packet overwrites.
        var buffer = new byte[LongestPacket];
        byte next = 0;
        for (; input.Length >= 4 && unused.Count < MostKept; input = input[4..])
        {
            var packet = buffer.AsSpan(0, ((input[0] << 8) | input[1]) % (LongestPacket + 1));
            foreach (ref var value in packet)
            {
                value = next++;
            }

            unused.AddRange(packet);
            var data = stream.Begin(packet);
            Property.Holds(data.SequenceEqual(unused.ToArray()));

            // By the byte at the ends, by shares in between.
            var used = input[2] switch
            {
                < 64 => Math.Min(data.Length, input[2]),
                < 128 => Math.Max(0, data.Length - (input[2] - 64)),
                var share => (int)((long)data.Length * (share - 128) / 127),
            };
            switch (input[3] % 4)
            {
                case 0 or 1:
                    unused.RemoveRange(0, used);
                    stream.End(data[used..]);
                    break;
                case 2:
                    // From the middle: the end is given up.
                    var kept = (data.Length - used) / 2;
                    unused = unused.GetRange(used, kept);
                    stream.End(data.Slice(used, kept));
                    break;
                default:
                    // Something else, which is overwritten afterwards like the packet.
                    var other = new byte[used];
                    new Random(used).NextBytes(other);
                    unused = [.. other];
                    stream.End(other);
                    Array.Clear(other);
                    break;
            }

            buffer.AsSpan().Clear();
            Property.Holds(stream.Count == unused.Count);
        }

        Property.Holds(stream.Begin([]).SequenceEqual(unused.ToArray()));
    }
}
