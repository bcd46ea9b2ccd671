namespace Evio.Bench.Tests;

public class StatisticsTests
{
    [Theory]
    [InlineData(new[] { 3.0 }, 3.0)]
    [InlineData(new[] { 9.0, 1.0, 2.0 }, 2.0)]
    [InlineData(new[] { 4.0, 1.0, 3.0, 100.0 }, 3.5)]
    public void MedianIsTheMiddle(double[] values, double expected) => Assert.Equal(expected, Statistics.Median(values));

    [Fact]
    public void NothingHasNoMedian() => Assert.Throws<ArgumentException>(() => Statistics.Median([]));

    [Fact]
    public void RatioIsTheMedianOfThePairsAndNotTheRatioOfTheMedians() =>
        Assert.Equal(new Ratio(3, 2, 3), Statistics.PairedRatio([30, 40, 60], [10, 20, 20]));

    [Fact]
    public void OnlyMeasurementsOfTheSamePairsMakeARatio() =>
        Assert.Throws<ArgumentException>(() => Statistics.PairedRatio([1, 2], [1]));

    [Fact]
    public void NoRatioToNothing() => Assert.Null(Statistics.PairedRatio([1, 2], [0, 0]));

    [Theory]
    [InlineData(50, 5)]
    [InlineData(99, 10)]
    [InlineData(1, 1)]
    public void PercentileIsTheNearestRank(double percent, double expected) =>
        Assert.Equal(expected, Statistics.Percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], percent));
}
