using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

namespace Evio.Bench;

/// <summary>A child process that is killed when its owner lets go of it, and what it has printed.</summary>
internal sealed partial class Child : IAsyncDisposable
{
    private const int MaxOutput = 1024 * 1024;

    private readonly Process _process;
    private readonly StringBuilder _output = new();

    private Child(Process process)
    {
        _process = process;
        _process.OutputDataReceived += (_, line) => Collect(line.Data);
        _process.ErrorDataReceived += (_, line) => Collect(line.Data);
    }

    public int Id { get; private set; }

    public string Output
    {
        get
        {
            lock (_output)
            {
                return _output.ToString();
            }
        }
    }

    public StreamWriter Input => _process.StandardInput;

    public static Child Start(ProcessStartInfo start)
    {
        start.RedirectStandardInput = start.RedirectStandardOutput = start.RedirectStandardError = true;
        var child = new Child(new Process { StartInfo = start });
        child._process.Start();
        child.Id = child._process.Id;
        child._process.BeginOutputReadLine();
        child._process.BeginErrorReadLine();
        return child;
    }

    /// <summary>A program on one processor. taskset becomes that program, so the process is the program's own.</summary>
    public static ProcessStartInfo Pinned(int processor, string program, IEnumerable<string> arguments) =>
        new(Tool.Taskset.Command, ["-c", $"{processor}", program, .. arguments]);

    /// <exception cref="BenchException">The program failed.</exception>
    public static async Task<string> RunToEndAsync(ProcessStartInfo start, CancellationToken cancellation)
    {
        await using var child = Start(start);
        return await child.WaitAsync(cancellation);
    }

    /// <summary>The output, once the program has come to its end.</summary>
    /// <exception cref="BenchException">The program failed.</exception>
    public async Task<string> WaitAsync(CancellationToken cancellation)
    {
        await _process.WaitForExitAsync(cancellation);
        return _process.ExitCode == 0
            ? Output
            : throw new BenchException(
                $"'{_process.StartInfo.FileName} {string.Join(' ', _process.StartInfo.ArgumentList)}' ended with {_process.ExitCode}:\n{Output.Trim()}");
    }

    public async Task WaitForOutputAsync(string text, CancellationToken cancellation)
    {
        while (!Output.Contains(text, StringComparison.Ordinal))
        {
            if (_process.HasExited)
            {
                throw new BenchException($"'{_process.StartInfo.FileName}' ended with {_process.ExitCode}:\n{Output.Trim()}");
            }

            await Task.Delay(20, cancellation);
        }
    }

    /// <summary>
    /// User and system time of all threads, those that have ended included, in nanoseconds where /proc/PID/stat has hundredths of a second.
    /// </summary>
    /// <exception cref="BenchException">The process has ended.</exception>
    public double CpuSeconds() => TryReadCpu() ?? throw new BenchException($"Process {Id} has ended:\n{Output.Trim()}");

    /// <summary>Null when the process has ended.</summary>
    public double? TryReadCpu() =>
        // Results are error numbers here, not flags that errno explains.
        GetCpuClock(Id, out var clock) == 0 && GetTime(clock, out var time) == 0 ? time.Seconds + (time.Nanoseconds / 1e9) : null;

    /// <summary>Waits until it has next to nothing more to do, or for some seconds if it always has.</summary>
    public async Task WaitUntilIdleAsync(CancellationToken cancellation)
    {
        var interval = TimeSpan.FromMilliseconds(300);
        var before = CpuSeconds();
        for (var i = 0; i < 15; i++)
        {
            await Task.Delay(interval, cancellation);
            var now = CpuSeconds();
            if (now - before < interval.TotalSeconds * 0.03)
            {
                return;
            }

            before = now;
        }
    }

    /// <summary>Forgets the peak of the resident memory so far.</summary>
    public void ResetPeakMemory() => File.WriteAllText($"/proc/{Id}/clear_refs", "5");

    public long PeakMemory() => ReadStatus("VmHWM:");

    public long ResidentMemory() => ReadStatus("VmRSS:");

    /// <summary>Sends a signal and waits for the end, if that does not take longer than the limit.</summary>
    public async Task EndAsync(int signal, TimeSpan limit)
    {
        if (_process.HasExited || SendSignal(Id, signal) != 0)
        {
            return;
        }

        using var end = new CancellationTokenSource(limit);
        try
        {
            await _process.WaitForExitAsync(end.Token);
        }
        catch (OperationCanceledException)
        {
            // DisposeAsync kills it.
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
        }

        await _process.WaitForExitAsync();
        _process.Dispose();
    }

    private long ReadStatus(string key)
    {
        var line = File.ReadLines($"/proc/{Id}/status").First(line => line.StartsWith(key, StringComparison.Ordinal));
        return long.Parse(line.AsSpan(key.Length).Trim().TrimEnd("kB").Trim(), provider: null) * 1024;
    }

    private void Collect(string? line)
    {
        lock (_output)
        {
            if (line is not null && _output.Length < MaxOutput)
            {
                _output.AppendLine(line);
            }
        }
    }

    [LibraryImport("libc", EntryPoint = "clock_getcpuclockid")]
    private static partial int GetCpuClock(int process, out int clock);

    [LibraryImport("libc", EntryPoint = "clock_gettime")]
    private static partial int GetTime(int clock, out TimeSpec time);

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int SendSignal(int process, int signal);

    /// <summary>struct timespec of 64-bit systems.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct TimeSpec
    {
        public long Seconds;
        public long Nanoseconds;
    }
}
