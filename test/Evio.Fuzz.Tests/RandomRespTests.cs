using System.Globalization;
using System.Text;
using CsCheck;

namespace Evio.Fuzz.Tests;

/// <summary>Random sequences of what commands are made of, through the target: most of them are wrong somewhere.</summary>
public sealed class RandomRespTests
{
    private static readonly Gen<byte[]> Inputs = Gen.OneOf(
            Gen.OneOf("*", "$", "\r\n", "\n", "*1\r\n", "*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n", "$4\r\nPING\r\n", "$0\r\n\r\n", "*-1\r\n", "*0\r\n", "$-1\r\n", "PING\r\n", "SET a b\n", " ", "\t"),
            Gen.Int[-2, 1_000_000_000].Select(static number => number.ToString(CultureInfo.InvariantCulture)),
            Gen.Int[10, 25].Select(static length => new string('0', length)),
            Gen.Int[0, 20].Select(static length => new string('x', length)),
            Gen.Frequency((9, Gen.Const(0)), (1, Gen.OneOf(64 * 1024 - 2, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1))).Select(static length => new string('y', length)),
            Gen.Byte.Select(static value => ((char)value).ToString()))
        .Array[1, 12]
        .Select(static pieces => Encoding.Latin1.GetBytes(string.Concat(pieces)));

    [Fact]
    public void What_the_target_promises_holds_for_random_commands() => Inputs.Sample(static input => RespTarget.Run(input), iter: 20_000);
}
