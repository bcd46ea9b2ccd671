using System.Globalization;
using System.Text;
using CsCheck;
using Evio.Samples.WebApp.Native;

namespace Evio.Samples.Tests;

/// <summary>The parser of the Redis protocol, which sees its input in whatever pieces TCP makes of it.</summary>
public sealed class RespCommandTests
{
    /// <summary>Pieces of commands, of which most sequences are wrong somewhere.</summary>
    private static readonly Gen<byte[]> Inputs = Gen.OneOf(
            Gen.OneOf("*", "$", "\r\n", "\n", "*1\r\n", "*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n", "$4\r\nPING\r\n", "$0\r\n\r\n", "*-1\r\n", "*0\r\n", "$-1\r\n", "PING\r\n", "SET a b\n", " ", "\t"),
            Gen.Int[-2, 1_000_000_000].Select(static number => number.ToString(CultureInfo.InvariantCulture)),
            Gen.Int[10, 25].Select(static length => new string('0', length)),
            Gen.Int[0, 20].Select(static length => new string('x', length)),
            Gen.Frequency((9, Gen.Const(0)), (1, Gen.OneOf(64 * 1024 - 2, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1))).Select(static length => new string('y', length)),
            Gen.Byte.Select(static value => ((char)value).ToString()))
        .Array[1, 12]
        .Select(static pieces => Encoding.Latin1.GetBytes(string.Concat(pieces)));

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

    [Fact]
    public void Input_in_pieces_is_what_it_is_whole() =>
        Inputs.Sample(static input =>
        {
            var whole = Parse(input);
            for (var length = 0; length < input.Length; length = length < 64 || length > input.Length - 64 ? length + 1 : length + 997)
            {
                var part = Parse(input.AsSpan(0, length));
                Assert.True(
                    part.Result == RespResult.Incomplete || part == whole,
                    $"After {length} of {input.Length} bytes it is {part}, after all of them {whole}.");
            }
        });

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
