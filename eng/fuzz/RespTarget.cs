using System.Globalization;
using System.Text;
using Evio.Samples.WebApp.Native;

namespace Evio.Fuzz;

/// <summary>A command is the same however its input is cut, lies inside it, and comes out again when it is written as an array.</summary>
internal static class RespTarget
{
    public static void Run(ReadOnlySpan<byte> input)
    {
        var arguments = new List<Range>();
        while (true)
        {
            var result = Check(input, arguments, out var length);
            if (result != RespResult.Complete)
            {
                return;
            }

            input = input[length..];
        }
    }

    private static RespResult Check(ReadOnlySpan<byte> input, List<Range> arguments, out int length)
    {
        var result = RespCommand.Parse(input, arguments, out length);
        CheckPrefixes(input, result, arguments, length);
        if (result == RespResult.Complete)
        {
            CheckCommand(input, arguments, length);
            return result;
        }

        Property.Holds(length == 0);
        if (result != RespResult.Incomplete)
        {
            var reply = RespCommand.Describe(result);
            Property.Holds(reply.StartsWith("-ERR Protocol error: "u8) && reply.IndexOf("\r\n"u8) == reply.Length - 2);
        }

        return result;
    }

    private static void CheckPrefixes(ReadOnlySpan<byte> input, RespResult result, List<Range> arguments, int length)
    {
        var someArguments = new List<Range>();

        // Of a long input not each: around its ends and the command's, and here and there.
        for (var size = 0; size < input.Length; size += size < 64 || size > input.Length - 64 || Math.Abs(size - length) < 64 ? 1 : 61)
        {
            var part = RespCommand.Parse(input[..size], someArguments, out var partLength);
            if (part == RespResult.Incomplete)
            {
                Property.Holds(partLength == 0);
                Property.Holds(result != RespResult.Complete || size < length);
                continue;
            }

            Property.Holds(part == result);
            Property.Holds(partLength == length);
            Property.Holds(part != RespResult.Complete || someArguments.SequenceEqual(arguments));
        }
    }

    private static void CheckCommand(ReadOnlySpan<byte> input, List<Range> arguments, int length)
    {
        Property.Holds(length > 0 && length <= input.Length);
        Property.Holds(input[length - 1] == '\n' || input[0] == '*');

        // In their order, apart from each other, and inside the command.
        var end = 0;
        foreach (var argument in arguments)
        {
            Property.Holds(!argument.Start.IsFromEnd && !argument.End.IsFromEnd);
            Property.Holds(argument.Start.Value > end - (end == 0 ? 1 : 0) && argument.End.Value >= argument.Start.Value);
            end = argument.End.Value;
        }

        Property.Holds(end < length);

        var array = new MemoryStream();
        Write(array, string.Create(CultureInfo.InvariantCulture, $"*{arguments.Count}\r\n"));
        foreach (var argument in arguments)
        {
            var value = input[argument];
            Write(array, string.Create(CultureInfo.InvariantCulture, $"${value.Length}\r\n"));
            array.Write(value);
            array.Write("\r\n"u8);
        }

        var written = array.GetBuffer().AsSpan(0, (int)array.Length);
        var again = new List<Range>();
        Property.Holds(RespCommand.Parse(written, again, out var writtenLength) == RespResult.Complete);
        Property.Holds(writtenLength == written.Length);
        Property.Holds(again.Count == arguments.Count);
        for (var i = 0; i < again.Count; i++)
        {
            Property.Holds(written[again[i]].SequenceEqual(input[arguments[i]]));
        }
    }

    private static void Write(MemoryStream stream, string text) => stream.Write(Encoding.ASCII.GetBytes(text));
}
