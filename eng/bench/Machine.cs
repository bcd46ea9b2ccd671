using System.Globalization;
using System.Runtime.InteropServices;

namespace Evio.Bench;

/// <summary>What the figures depend on.</summary>
internal sealed record Machine(string Cpu, int Processors, string Kernel, string Runtime, string Date, string LoadAverage, double BusyFraction)
{
    /// <summary>Above this share of its processors' time, something else runs on the machine.</summary>
    private const double CalmFraction = 0.1;

    public bool IsBusy => BusyFraction > CalmFraction;

    public string Line =>
        $"{Cpu}, {Processors} processors, Linux {Kernel}, {Runtime}, {Date}, load average {LoadAverage}";

    public static async Task<Machine> DescribeAsync(CancellationToken cancellation)
    {
        var loadAverage = string.Join(' ', (await File.ReadAllTextAsync("/proc/loadavg", cancellation)).Split(' ').Take(3));
        var before = ProcessorTime.ReadAll();
        await Task.Delay(TimeSpan.FromSeconds(1), cancellation);
        var busy = ProcessorTime.ReadAll().BusySince(before);

        var cpu = File.ReadLines("/proc/cpuinfo")
            .Where(static line => line.StartsWith("model name", StringComparison.Ordinal))
            .Select(static line => line[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Trim())
            .FirstOrDefault(RuntimeInformation.ProcessArchitecture.ToString());
        return new Machine(
            cpu,
            File.ReadLines("/proc/cpuinfo").Count(static line => line.StartsWith("processor", StringComparison.Ordinal)),
            (await File.ReadAllTextAsync("/proc/sys/kernel/osrelease", cancellation)).Trim(),
            RuntimeInformation.FrameworkDescription,
            DateTime.UtcNow.ToString("yyyy-MM-dd HH:mm 'UTC'", CultureInfo.InvariantCulture),
            loadAverage,
            busy);
    }

    /// <summary>Two processors for this process that are not two threads of one core, as far as there are such.</summary>
    /// <exception cref="BenchException">There is only one.</exception>
    public static (int Server, int Load) ChooseProcessors()
    {
        var allowed = ParseList(
            File.ReadLines("/proc/self/status").First(static line => line.StartsWith("Cpus_allowed_list:", StringComparison.Ordinal)).Split(':')[1]);
        if (allowed.Count < 2)
        {
            throw new BenchException("Server and load need a processor each, and this process may use one only.");
        }

        var siblingsFile = $"/sys/devices/system/cpu/cpu{allowed[0]}/topology/thread_siblings_list";
        var siblings = File.Exists(siblingsFile) ? ParseList(File.ReadAllText(siblingsFile)) : [];
        return (allowed[0], allowed.Skip(1).Where(processor => !siblings.Contains(processor)).FirstOrDefault(allowed[1]));
    }

    /// <summary>The hard limit of open files, up to which .NET and the load generator raise theirs.</summary>
    public static long MaxOpenFiles()
    {
        var limits = File.ReadLines("/proc/self/limits").First(static line => line.StartsWith("Max open files", StringComparison.Ordinal));
        return long.TryParse(limits.Split(' ', StringSplitOptions.RemoveEmptyEntries)[4], CultureInfo.InvariantCulture, out var hard) ? hard : long.MaxValue;
    }

    /// <summary>A list in the kernel's notation: <c>0-3,8</c>.</summary>
    public static IReadOnlyList<int> ParseList(string list) =>
    [
        .. list.Trim().Split(',').SelectMany(static range =>
        {
            var ends = range.Split('-');
            var first = int.Parse(ends[0], CultureInfo.InvariantCulture);
            return Enumerable.Range(first, int.Parse(ends[^1], CultureInfo.InvariantCulture) - first + 1);
        }),
    ];
}

/// <summary>How long processors have been busy and idle, in ticks of /proc/stat.</summary>
/// <param name="Interrupts">The part of <paramref name="Busy"/> that interrupts took, on behalf of whichever process.</param>
internal readonly record struct ProcessorTime(long Busy, long Interrupts, long Idle)
{
    public static ProcessorTime ReadAll() => Parse(File.ReadAllText("/proc/stat"), "cpu");

    public static ProcessorTime Read(int processor) => Parse(File.ReadAllText("/proc/stat"), $"cpu{processor}");

    public double BusySince(ProcessorTime before)
    {
        var (busy, idle) = (Busy - before.Busy, Idle - before.Idle);
        return busy + idle == 0 ? 0 : (double)busy / (busy + idle);
    }

    /// <summary>
    /// The share that processes took, leaving out interrupts: some kernels charge those to the process that they interrupt and others do not.
    /// </summary>
    public double ProcessesSince(ProcessorTime before)
    {
        var (processes, all) = (Busy - Interrupts - before.Busy + before.Interrupts, Busy + Idle - before.Busy - before.Idle);
        return all == 0 ? 0 : (double)processes / all;
    }

    public static ProcessorTime Parse(string stat, string processor)
    {
        var line = stat.Split('\n').First(line => line.StartsWith($"{processor} ", StringComparison.Ordinal));

        // user nice system idle iowait irq softirq steal; guest time, which follows, is part of user time.
        long[] ticks =
        [
            .. line.Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).Take(8).Select(static text => long.Parse(text, CultureInfo.InvariantCulture)),
        ];
        var idle = ticks[3] + ticks[4];
        return new ProcessorTime(ticks.Sum() - idle, ticks[5] + ticks[6], idle);
    }
}
