namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Bytes that tell whether one of them is missing, doubled or out of place.</summary>
internal static class Payload
{
    internal static byte[] Random(int seed, int length)
    {
        var data = new byte[length];
        new Random(seed).NextBytes(data);
        return data;
    }

    /// <summary>A seed that the test's output names, so that a failure can be repeated.</summary>
    internal static int NewSeed(string what = "seed")
    {
        var seed = System.Random.Shared.Next();
        TestContext.Current.TestOutputHelper!.WriteLine($"{what}: {seed}");
        return seed;
    }

    internal static void AssertSame(ReadOnlyMemory<byte> expected, byte[] actual)
    {
        Assert.Equal(expected.Length, actual.Length);
        var common = expected.Span.CommonPrefixLength(actual);
        Assert.True(common == expected.Length, $"Byte {common} of {expected.Length} differs.");
    }
}
