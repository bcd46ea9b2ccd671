using System.Diagnostics;

namespace Evio.Bench;

/// <summary>A program that a scenario needs, and the Debian package that has it.</summary>
internal sealed record Tool(string Command, string Package)
{
    public static Tool Wrk { get; } = new("wrk", "wrk");

    public static Tool H2Load { get; } = new("h2load", "nghttp2-client");

    public static Tool Compiler { get; } = new("cc", "gcc libc6-dev");

    public static Tool Taskset { get; } = new("taskset", "util-linux");

    public bool IsInstalled { get; } = (Environment.GetEnvironmentVariable("PATH") ?? "")
        .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
        .Any(directory => File.Exists(Path.Combine(directory, Command)));

    /// <exception cref="BenchException">The compiler has something to say.</exception>
    public static async Task CompileAsync(string source, string program, CancellationToken cancellation)
    {
        var start = new ProcessStartInfo(Compiler.Command, ["-O2", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-o", program, source]);
        await Child.RunToEndAsync(start, cancellation);
    }
}

/// <summary>The harness cannot go on; the message says why.</summary>
internal sealed class BenchException(string message) : Exception(message);
