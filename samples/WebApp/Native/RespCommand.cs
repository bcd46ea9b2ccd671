using System.Buffers.Text;

namespace Evio.Samples.WebApp.Native;

/// <summary>What the bytes at the front of the input are.</summary>
internal enum RespResult
{
    Complete,
    Incomplete,
    BadArrayLength,
    BadBulkLength,
    NoBulk,
    TooLong,
}

/// <summary>Commands of the Redis protocol (RESP): arrays of bulk strings, or inline lines of words.</summary>
internal static class RespCommand
{
    /// <summary>As in Redis: no value is longer.</summary>
    public const int MaxBulk = 512 * 1024 * 1024;

    private const int MaxArguments = 1024 * 1024;
    private const int MaxLine = 64 * 1024;

    /// <summary>No number that could be permitted has more characters, the carriage return included.</summary>
    private const int MaxNumber = 16;

    /// <summary>Finds the first command of <paramref name="data"/>.</summary>
    /// <param name="data">The input so far.</param>
    /// <param name="arguments">Filled with where in <paramref name="data"/> its arguments are, the name first; empty for an empty command.</param>
    /// <param name="length">The length of the command; 0 unless it is complete.</param>
    public static RespResult Parse(ReadOnlySpan<byte> data, List<Range> arguments, out int length)
    {
        arguments.Clear();
        length = 0;
        if (data.IsEmpty)
        {
            return RespResult.Incomplete;
        }

        return data[0] == '*' ? ParseArray(data, arguments, out length) : ParseInline(data, arguments, out length);
    }

    /// <summary>The reply to a command that cannot be understood.</summary>
    public static ReadOnlySpan<byte> Describe(RespResult result) => result switch
    {
        RespResult.BadArrayLength => "-ERR Protocol error: invalid multibulk length\r\n"u8,
        RespResult.BadBulkLength => "-ERR Protocol error: invalid bulk length\r\n"u8,
        RespResult.NoBulk => "-ERR Protocol error: expected '$'\r\n"u8,
        RespResult.TooLong => "-ERR Protocol error: too big inline request\r\n"u8,
        _ => throw new ArgumentOutOfRangeException(nameof(result), result, "Not an error."),
    };

    private static RespResult ParseArray(ReadOnlySpan<byte> data, List<Range> arguments, out int length)
    {
        length = 0;
        var result = ParseNumber(data, 1, MaxArguments, RespResult.BadArrayLength, out var count, out var at);
        if (result != RespResult.Complete)
        {
            return result;
        }

        for (var i = 0; i < count; i++)
        {
            if (at == data.Length)
            {
                return RespResult.Incomplete;
            }

            if (data[at] != '$')
            {
                return RespResult.NoBulk;
            }

            result = ParseNumber(data, at + 1, MaxBulk, RespResult.BadBulkLength, out var size, out at);
            if (result != RespResult.Complete)
            {
                return result;
            }

            if (size < 0)
            {
                return RespResult.BadBulkLength;
            }

            if (data.Length - at < size + 2)
            {
                return RespResult.Incomplete;
            }

            arguments.Add(at..(at + size));
            at += size + 2;
        }

        length = at;
        return RespResult.Complete;
    }

    /// <summary>A number and the end of its line. Array lengths may be −1, which is an empty command.</summary>
    private static RespResult ParseNumber(ReadOnlySpan<byte> data, int start, int max, RespResult error, out int number, out int next)
    {
        number = 0;
        next = 0;
        var line = data[start..];
        var end = line.IndexOf((byte)'\n');
        if ((end < 0 ? line.Length : end) > MaxNumber)
        {
            return error;
        }

        if (end < 0)
        {
            return RespResult.Incomplete;
        }

        next = start + end + 1;
        var digits = line[..end].TrimEnd((byte)'\r');
        return Utf8Parser.TryParse(digits, out number, out var used) && used == digits.Length && number >= -1 && number <= max
            ? RespResult.Complete
            : error;
    }

    private static RespResult ParseInline(ReadOnlySpan<byte> data, List<Range> arguments, out int length)
    {
        length = 0;
        var end = data.IndexOf((byte)'\n');
        if ((end < 0 ? data.Length : end) > MaxLine)
        {
            return RespResult.TooLong;
        }

        if (end < 0)
        {
            return RespResult.Incomplete;
        }

        length = end + 1;
        var line = data[..end].TrimEnd((byte)'\r');
        foreach (var word in line.SplitAny((byte)' ', (byte)'\t'))
        {
            if (!line[word].IsEmpty)
            {
                arguments.Add(word);
            }
        }

        return RespResult.Complete;
    }
}
