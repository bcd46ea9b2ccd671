using System.Globalization;
using System.Runtime.CompilerServices;

namespace Evio.Transport.Testing;

internal static class TestData
{
    /// <summary>The environment variable that repeats a random test with the seed that a failure printed.</summary>
    public const string SeedVariable = "EVIO_TEST_SEED";

    /// <summary>Bytes in which any shift, loss or repetition shows.</summary>
    public static byte[] Bytes(int count, int seed = 1)
    {
        var bytes = new byte[count];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    /// <summary>A seed for a random test, written to the test's output, which is shown when the test fails.</summary>
    public static int NewSeed([CallerMemberName] string? test = null)
    {
        var given = Environment.GetEnvironmentVariable(SeedVariable);
        var seed = given is null ? Random.Shared.Next() : int.Parse(given, CultureInfo.InvariantCulture);
        TestContext.Current.TestOutputHelper?.WriteLine($"{test}: {SeedVariable}={seed}");
        return seed;
    }

    /// <summary>Compares without building a textual difference of megabytes.</summary>
    public static void AssertSame(ReadOnlyMemory<byte> expected, ReadOnlyMemory<byte> actual)
    {
        var common = expected.Span.CommonPrefixLength(actual.Span);
        Assert.True(
            common == expected.Length && common == actual.Length,
            $"{expected.Length} bytes expected, {actual.Length} received; the first {common} are the same.");
    }
}
