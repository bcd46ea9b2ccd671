using System.Text;
using Evio.Samples.WebApp.Native;

namespace Evio.Samples.Tests;

/// <summary>The parser of the Redis protocol. That its input may come in any pieces, <c>Evio.Fuzz.Tests</c> has.</summary>
public sealed class RespCommandTests
{
    public static TheoryData<string, string> Errors => new()
    {
        { "*x\r\n", nameof(RespResult.BadArrayLength) },
        { "*1048577\r\n", nameof(RespResult.BadArrayLength) },
        { "*-2\r\n", nameof(RespResult.BadArrayLength) },
        { "*\r\n", nameof(RespResult.BadArrayLength) },
        { "*0000000000000000001\r\n$4\r\nPING\r\n", nameof(RespResult.BadArrayLength) },
        { "*1\r\n$-1\r\n", nameof(RespResult.BadBulkLength) },
        { "*1\r\n$536870913\r\n", nameof(RespResult.BadBulkLength) },
        { "*1\r\n$00000000000000004\r\nPING\r\n", nameof(RespResult.BadBulkLength) },
        { "*1\r\nPING\r\n", nameof(RespResult.NoBulk) },
        { new string('x', 64 * 1024 + 1) + "\r\n", nameof(RespResult.TooLong) },
    };

    [Theory, MemberData(nameof(Errors))]
    public void What_Redis_refuses_is_refused(string input, string expected)
    {
        Assert.Equal(expected, Parse(Encoding.Latin1.GetBytes(input)).Result.ToString());
        Assert.StartsWith("-ERR Protocol error: ", Encoding.ASCII.GetString(RespCommand.Describe(Enum.Parse<RespResult>(expected))), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\nrest", "ECHO|a\r\n", 23)]
    [InlineData("*1\n$4\nPING\r\nrest", "PING", 12)]
    [InlineData("*0\r\nrest", "", 4)]
    [InlineData("*-1\r\nrest", "", 5)]
    [InlineData("  SET\ta  b \r\nrest", "SET|a|b", 13)]
    [InlineData("\r\nrest", "", 2)]
    public void A_command_is_found_with_its_arguments_and_its_end(string input, string arguments, int length)
    {
        var command = Parse(Encoding.Latin1.GetBytes(input));

        Assert.Equal((RespResult.Complete, arguments, length), command);
    }

    private static (RespResult Result, string Arguments, int Length) Parse(ReadOnlySpan<byte> input)
    {
        var ranges = new List<Range>();
        var result = RespCommand.Parse(input, ranges, out var length);
        var arguments = new StringBuilder();
        if (result == RespResult.Complete)
        {
            foreach (var range in ranges)
            {
                arguments.Append(arguments.Length == 0 ? "" : "|").Append(Encoding.Latin1.GetString(input[range]));
            }
        }

        return (result, arguments.ToString(), length);
    }
}
