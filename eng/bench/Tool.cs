using System.Diagnostics;

namespace Evio.Bench;

/// <summary>A program that a scenario needs, and the Debian package that has it.</summary>
internal sealed record Tool(string Command, string Package)
{
    /// <summary>Debian puts PostgreSQL's programs for servers here, in a folder for each version.</summary>
    private const string PostgreSqlVersions = "/usr/lib/postgresql";

    public static Tool Wrk { get; } = new("wrk", "wrk");

    public static Tool H2Load { get; } = new("h2load", "nghttp2-client");

    public static Tool Compiler { get; } = new("cc", "gcc libc6-dev");

    public static Tool Taskset { get; } = new("taskset", "util-linux");

    public static Tool InitDb { get; } = new("initdb", "postgresql");

    public static Tool Postgres { get; } = new("postgres", "postgresql");

    public static Tool Psql { get; } = new("psql", "postgresql");

    /// <summary>The path of the program; null when it is not installed.</summary>
    public string? Location { get; } = Folders().Select(folder => Path.Combine(folder, Command)).FirstOrDefault(File.Exists);

    public bool IsInstalled => Location is not null;

    /// <summary>Why nothing can be run with it; null when it is installed.</summary>
    public string? Obstacle => IsInstalled ? null : $"{Command} is not installed (package {Package})";

    /// <exception cref="BenchException">The compiler has something to say.</exception>
    public static async Task CompileAsync(string source, string program, CancellationToken cancellation)
    {
        var start = new ProcessStartInfo(Compiler.Command, ["-O2", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-o", program, source]);
        await Child.RunToEndAsync(start, cancellation);
    }

    private static IEnumerable<string> Folders() =>
    [
        .. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries),
        .. Directory.Exists(PostgreSqlVersions)
            ? Directory.GetDirectories(PostgreSqlVersions).OrderDescending(StringComparer.Ordinal)
                .Select(static version => Path.Combine(version, "bin"))
            : [],
    ];
}

/// <summary>The harness cannot go on; the message says why.</summary>
internal sealed class BenchException(string message) : Exception(message);
