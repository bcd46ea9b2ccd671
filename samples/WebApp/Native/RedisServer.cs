using System.Collections.Concurrent;
using System.Globalization;
using System.Text;
using Evio.Transport.Native;

namespace Evio.Samples.WebApp.Native;

/// <summary>A little Redis: PING, ECHO, SET, GET, DEL, FLUSHDB and QUIT, pipelined or not, on a store that all its connections share.</summary>
internal sealed class RedisServer
{
    private readonly ConcurrentDictionary<byte[], byte[]> _store = new(BytesComparer.Instance);

    public static Events Create(int loops)
    {
        var server = new RedisServer();
        return new Events
        {
            NumLoops = loops,
            Opened = static (Connection connection, ref ConnectionOptions options) =>
            {
                connection.Context = new RedisClient();
                return EvioAction.None;
            },
            Data = server.OnData,
        };
    }

    private EvioAction OnData(Connection connection, ReadOnlySpan<byte> input)
    {
        var client = (RedisClient)connection.Context!;
        var data = client.Input.Begin(input);
        var action = EvioAction.None;
        while (action == EvioAction.None)
        {
            var command = RespCommand.Parse(data, client.Arguments, out var length);
            if (command == RespResult.Incomplete)
            {
                break;
            }

            if (command == RespResult.Complete)
            {
                action = client.Arguments.Count == 0 ? EvioAction.None : Run(connection, data, client.Arguments);
            }
            else
            {
                // As Redis does: what follows cannot be understood either.
                connection.Write(RespCommand.Describe(command));
                action = EvioAction.Close;
            }

            data = data[length..];
        }

        client.Input.End(data);
        return action;
    }

    private EvioAction Run(Connection connection, ReadOnlySpan<byte> data, List<Range> arguments)
    {
        var name = data[arguments[0]];
        var count = arguments.Count - 1;
        switch (name.Length)
        {
            case 4 when Is(name, "PING") && count <= 1:
                Reply(connection, count == 0 ? "+PONG\r\n"u8 : default);
                if (count == 1)
                {
                    ReplyBulk(connection, data[arguments[1]]);
                }

                return EvioAction.None;
            case 4 when Is(name, "ECHO") && count == 1:
                ReplyBulk(connection, data[arguments[1]]);
                return EvioAction.None;
            case 3 when Is(name, "SET") && count == 2:
                _store[data[arguments[1]].ToArray()] = data[arguments[2]].ToArray();
                Reply(connection, "+OK\r\n"u8);
                return EvioAction.None;
            case 3 when Is(name, "GET") && count == 1:
                if (_store.GetAlternateLookup<ReadOnlySpan<byte>>().TryGetValue(data[arguments[1]], out var value))
                {
                    ReplyBulk(connection, value);
                }
                else
                {
                    Reply(connection, "$-1\r\n"u8);
                }

                return EvioAction.None;
            case 3 when Is(name, "DEL") && count >= 1:
                var removed = 0;
                foreach (var key in arguments.Skip(1))
                {
                    removed += _store.GetAlternateLookup<ReadOnlySpan<byte>>().TryRemove(data[key], out _) ? 1 : 0;
                }

                ReplyNumber(connection, (byte)':', removed);
                return EvioAction.None;
            case 7 when Is(name, "FLUSHDB") && count == 0:
                _store.Clear();
                Reply(connection, "+OK\r\n"u8);
                return EvioAction.None;
            case 4 when Is(name, "QUIT"):
                Reply(connection, "+OK\r\n"u8);
                return EvioAction.Close;
        }

        var text = Printable(name);
        Reply(connection, Encoding.ASCII.GetBytes(
            name.Length is 3 or 4 or 7 && IsKnown(name)
                ? $"-ERR wrong number of arguments for '{text.ToLowerInvariant()}' command\r\n"
                : $"-ERR unknown command '{text}'\r\n"));
        return EvioAction.None;
    }

    private static bool IsKnown(ReadOnlySpan<byte> name) =>
        Is(name, "PING") || Is(name, "ECHO") || Is(name, "SET") || Is(name, "GET") || Is(name, "DEL") || Is(name, "FLUSHDB");

    private static bool Is(ReadOnlySpan<byte> name, string command) => Ascii.EqualsIgnoreCase(name, command);

    /// <summary>A name as it may stand in a reply's line.</summary>
    private static string Printable(ReadOnlySpan<byte> name) =>
        string.Concat(Encoding.Latin1.GetString(name[..Math.Min(name.Length, 128)]).Select(static c => c is >= ' ' and <= '~' ? c : '?'));

    private static void Reply(Connection connection, ReadOnlySpan<byte> line) => connection.Write(line);

    private static void ReplyBulk(Connection connection, ReadOnlySpan<byte> value)
    {
        ReplyNumber(connection, (byte)'$', value.Length);
        connection.Write(value);
        connection.Write("\r\n"u8);
    }

    private static void ReplyNumber(Connection connection, byte prefix, int number)
    {
        Span<byte> line = stackalloc byte[16];
        line[0] = prefix;
        _ = number.TryFormat(line[1..], out var digits, default, CultureInfo.InvariantCulture);
        "\r\n"u8.CopyTo(line[(1 + digits)..]);
        connection.Write(line[..(3 + digits)]);
    }

    /// <summary>What a connection keeps between packets.</summary>
    private sealed class RedisClient
    {
        public InputStream Input { get; } = new();

        public List<Range> Arguments { get; } = [];
    }

    /// <summary>Keys by content, also asked for without making an array of them.</summary>
    private sealed class BytesComparer : IEqualityComparer<byte[]>, IAlternateEqualityComparer<ReadOnlySpan<byte>, byte[]>
    {
        public static readonly BytesComparer Instance = new();

        public bool Equals(byte[]? x, byte[]? y) => x.AsSpan().SequenceEqual(y);

        public int GetHashCode(byte[] bytes) => GetHashCode(bytes.AsSpan());

        public byte[] Create(ReadOnlySpan<byte> alternate) => alternate.ToArray();

        public bool Equals(ReadOnlySpan<byte> alternate, byte[] other) => alternate.SequenceEqual(other);

        public int GetHashCode(ReadOnlySpan<byte> alternate)
        {
            var hash = default(HashCode);
            hash.AddBytes(alternate);
            return hash.ToHashCode();
        }
    }
}
