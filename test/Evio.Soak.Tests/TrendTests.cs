namespace Evio.Soak.Tests;

public class TrendTests
{
    [Fact]
    public void WhatStaysHasNoGrowth() => Assert.Equal(0, Trend.Growth([.. Enumerable.Repeat(5L, 100)], 8));

    [Fact]
    public void GrowthIsThatFromTheFirstStretchToTheLast() =>
        Assert.Equal(700, Trend.Growth([.. Enumerable.Range(0, 80).Select(static i => (long)(i / 10 * 100))], 8), tolerance: 1e-6);

    [Fact]
    public void WhatShrinksGrowsByLessThanNothing() => Assert.True(Trend.Growth([.. Enumerable.Range(0, 80).Select(static i => -(long)i)], 8) < -60);

    /// <summary>A heap between its collections: up by 20, and back.</summary>
    [Fact]
    public void SawTeethAreNoGrowth() => Assert.Equal(0, Trend.Growth([.. Enumerable.Range(0, 160).Select(static i => 100L + (i % 20))], 8));

    [Fact]
    public void GrowthIsSeenBeneathSawTeeth() =>
        Assert.Equal(70, Trend.Growth([.. Enumerable.Range(0, 160).Select(static i => (i / 20 * 10L) + (i % 20 * 50L))], 8), tolerance: 1e-6);

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(7)]
    public void OneOddStretchDoesNotDecide(int odd) =>
        Assert.Equal(0, Trend.Growth([.. Enumerable.Range(0, 80).Select(i => i / 10 == odd ? 10_000L : 100)], 8));

    [Fact]
    public void TooFewSamplesHaveNoTrend()
    {
        Assert.Throws<ArgumentException>(() => Trend.Growth([1, 2, 3], 4));
        Assert.Throws<ArgumentOutOfRangeException>(() => Trend.Growth([1, 2, 3], 1));
    }
}
