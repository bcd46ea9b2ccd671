namespace Evio.Bench.Tests;

public class MachineTests
{
    private const string Stat = """
        cpu  100 1 50 1000 20 3 4 5 0 0
        cpu0 60 0 30 500 10 1 2 3 0 0
        cpu1 40 1 20 500 10 2 2 2 0 0
        intr 1
        """;

    [Theory]
    [InlineData("0-1\n", new[] { 0, 1 })]
    [InlineData("\t3,5-7,9", new[] { 3, 5, 6, 7, 9 })]
    public void ProcessorListsAreInTheKernelsNotation(string list, int[] expected) => Assert.Equal(expected, Machine.ParseList(list));

    [Fact]
    public void WaitingForADiskIsNotBusy() => Assert.Equal(new ProcessorTime(Busy: 96, Interrupts: 3, Idle: 510), ProcessorTime.Parse(Stat, "cpu0"));

    [Fact]
    public void TheFirstLineIsAllProcessorsTogether() => Assert.Equal(new ProcessorTime(163, 7, 1020), ProcessorTime.Parse(Stat, "cpu"));

    [Fact]
    public void SharesAreOfTheTimeThatPassed()
    {
        var (before, after) = (new ProcessorTime(100, 10, 100), new ProcessorTime(160, 20, 140));

        Assert.Equal(0.6, after.BusySince(before));
        Assert.Equal(0.5, after.ProcessesSince(before));
        Assert.Equal(0, before.BusySince(before));
    }
}
