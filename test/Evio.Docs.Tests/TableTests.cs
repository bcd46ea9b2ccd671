using System.Diagnostics.Metrics;
using System.Text.RegularExpressions;
using Evio.Transport;
using Evio.Transport.Native;

namespace Evio.Docs.Tests;

/// <summary>The README's tables have every option with its default, every instrument with its unit, every switch of the sample, and the benchmark's figures.</summary>
public sealed partial class TableTests
{
    private static readonly string[] Readme = File.ReadAllLines(Path.Combine(DocumentPage.Root, "README.md"));

    [Fact]
    public void Every_option_of_the_transport_is_there_with_its_default() =>
        Assert.Equal(Options(new EvioTransportOptions()), Rows("| option | default | meaning |").ToDictionary(static row => Code(row[0]), static row => row[1]));

    [Fact]
    public void Every_option_of_the_callbacks_is_there_with_its_default() =>
        Assert.Equal(Options(new Events()), Rows("| option of `Events` | default | meaning |").ToDictionary(static row => Code(row[0]), static row => row[1]));

    [Fact]
    public void Every_option_of_a_connection_is_there_with_its_default() =>
        Assert.Equal(
            Options(new ConnectionOptions()),
            Rows("| option of a connection, set in `Opened` | default | meaning |").ToDictionary(static row => Code(row[0]), static row => row[1]));

    [Fact]
    public void Every_callback_is_there()
    {
        var callbacks = typeof(Events).GetProperties().Where(static property => IsCallback(property.PropertyType)).Select(static property => property.Name);
        var text = string.Join('\n', Readme);

        Assert.DoesNotContain(callbacks, name => !text.Contains($"`{name}`", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Every_instrument_is_there_with_its_unit()
    {
        var instruments = new Dictionary<string, string>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, _) =>
            {
                if (instrument.Meter.Name == EventLoopGroup.MeterName)
                {
                    lock (instruments)
                    {
                        instruments[instrument.Name] = instrument.Unit!;
                    }
                }
            },
        };
        listener.Start();
        await using (var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 }))
        {
            Assert.Single(group.Loops);
        }

        lock (instruments)
        {
            Assert.Equal(instruments, Rows("| instrument | unit | meaning |").ToDictionary(static row => Code(row[0]), static row => Code(row[1])));
        }
    }

    [Fact]
    public void Every_switch_of_the_sample_is_there()
    {
        var switches = Switch().Matches(File.ReadAllText(Path.Combine(DocumentPage.Root, "samples/WebApp/Settings.cs"))).Select(static match => match.Groups[1].Value).ToArray();
        Assert.Contains("--transport", switches);
        var shown = string.Join('\n', Rows("| switch | default | meaning |").Select(static row => row[0]));

        Assert.DoesNotContain(switches, name => !shown.Contains($"`{name} ", StringComparison.Ordinal));
    }

    [Fact]
    public void The_figures_are_those_of_the_benchmark()
    {
        var results = File.ReadAllLines(Path.Combine(DocumentPage.Root, "docs/benchmarks.md"));
        var rows = Rows("| scenario | `Adaptive`, the default | `ThreadPool` |").ToArray();
        Assert.NotEmpty(rows);

        Assert.All(rows, row =>
        {
            var scenario = results.SkipWhile(line => line != $"### {row[0].Split('`')[1]}").Skip(1).TakeWhile(static line => !line.StartsWith('#')).ToArray();
            Assert.Equal(PerProcessorSecond("evio-adaptive"), row[1]);
            Assert.Equal(PerProcessorSecond("evio-pool"), row[2]);

            string PerProcessorSecond(string variant) =>
                Ratio().Match(scenario.Single(line => line.StartsWith($"| {variant} ", StringComparison.Ordinal)).Split('|')[3]).Groups[1].Value;
        });
    }

    private static Dictionary<string, string> Options(object defaults) => defaults.GetType()
        .GetProperties()
        .Where(static property => !IsCallback(property.PropertyType))
        .ToDictionary(static property => property.Name, property => Spell(property.GetValue(defaults)));

    private static bool IsCallback(Type type) => type.IsSubclassOf(typeof(Delegate));

    /// <summary>A value as the tables spell it.</summary>
    private static string Spell(object? value) => value switch
    {
        null => "`null`",
        bool flag => flag ? "`true`" : "`false`",
        Enum choice => $"`{choice}`",
        IReadOnlyList<int> { Count: 0 } => "none",
        TimeSpan time when time == Timeout.InfiniteTimeSpan => "infinite",
        TimeSpan time when time == TimeSpan.Zero => "0",
        TimeSpan time => $"{time.TotalSeconds} s",
        int or long when Convert.ToInt64(value, null) is var number => number switch
        {
            < 0 => $"−{-number}",
            >= 1024 * 1024 when number % (1024 * 1024) == 0 => $"{number / (1024 * 1024)} MiB",
            >= 16 * 1024 when number % 1024 == 0 => $"{number / 1024} KiB",
            _ => $"{number}",
        },
        _ => throw new ArgumentException($"A {value.GetType()} has no spelling.", nameof(value)),
    };

    /// <summary>The cells of the table with this heading.</summary>
    private static IEnumerable<string[]> Rows(string heading)
    {
        var start = Array.IndexOf(Readme, heading);
        Assert.True(start >= 0, $"README.md has no table {heading}");
        return Readme.Skip(start + 2)
            .TakeWhile(static line => line.StartsWith('|'))
            .Select(static line => UnescapedBar().Split(line)[1..^1].Select(static cell => cell.Trim()).ToArray());
    }

    private static string Code(string cell) => cell.Trim('`');

    [GeneratedRegex("""\["(--[\w-]+)"\] =""")]
    private static partial Regex Switch();

    [GeneratedRegex(@"· (\d+\.\d+×)")]
    private static partial Regex Ratio();

    [GeneratedRegex(@"(?<!\\)\|")]
    private static partial Regex UnescapedBar();
}
