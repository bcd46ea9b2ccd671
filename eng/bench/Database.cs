using System.Diagnostics;
using System.Globalization;
using Evio.Transport.Testing;

namespace Evio.Bench;

/// <summary>A PostgreSQL server with a cluster of its own, in a temporary folder that goes with it.</summary>
internal sealed class Database : IAsyncDisposable
{
    private const int SIGQUIT = 3;

    /// <summary>All servers of a scenario keep their connections while others are measured.</summary>
    private const int MaxConnections = 600;

    /// <summary>The rows of TechEmpower's benchmarks, whose numbers are the same each time here.</summary>
    private const string Rows =
        """
        CREATE TABLE world (id integer PRIMARY KEY, randomnumber integer NOT NULL);
        INSERT INTO world SELECT id, id * 7919 % 10000 + 1 FROM generate_series(1, 10000) AS id;
        CREATE TABLE fortune (id integer PRIMARY KEY, message text NOT NULL);
        INSERT INTO fortune VALUES
          (1, 'fortune: No such file or directory'),
          (2, 'A computer scientist is someone who fixes things that aren''t broken.'),
          (3, 'After enough decimal places, nobody gives a damn.'),
          (4, 'A bad random number generator: 1, 1, 1, 1, 1, 4.33e+67, 1, 1, 1'),
          (5, 'A computer program does what you tell it to do, not what you want it to do.'),
          (6, 'Emacs is a nice operating system, but I prefer UNIX. — Tom Christaensen'),
          (7, 'Any program that runs right is obsolete.'),
          (8, 'A list is only as strong as its weakest link. — Donald Knuth'),
          (9, 'Feature: A bug with seniority.'),
          (10, 'Computers make very fast, very accurate mistakes.'),
          (11, '<script>alert("This should not be displayed in a browser alert box.");</script>'),
          (12, 'フレームワークのベンチマーク');
        ANALYZE;
        """;

    private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan StopTimeout = TimeSpan.FromSeconds(10);

    private readonly string _folder;
    private Child? _process;

    private Database(string folder, int port)
    {
        _folder = folder;
        ConnectionString = string.Create(
            CultureInfo.InvariantCulture, $"Host=127.0.0.1;Port={port};Username=postgres;Database=postgres;Max Auto Prepare=10");
    }

    public static IReadOnlyList<Tool> Tools { get; } = [Tool.InitDb, Tool.Postgres, Tool.Psql];

    /// <summary>For Npgsql.</summary>
    public string ConnectionString { get; }

    public int ProcessId => _process!.Id;

    public string Folder => _folder;

    /// <exception cref="BenchException">A program of PostgreSQL failed.</exception>
    public static async Task<Database> StartAsync(int processor, CancellationToken cancellation)
    {
        var port = FreePorts.Find(1)[0];
        // initdb makes it, so that it belongs to the user that PostgreSQL runs as.
        var database = new Database(Path.Combine(Path.GetTempPath(), $"evio-postgres-{Path.GetRandomFileName()}"), port);
        try
        {
            await database.StartAsync(processor, port, cancellation);
            return database;
        }
        catch
        {
            await database.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_process is not null)
        {
            // An immediate shutdown: nothing is written, and shared memory is given back.
            await _process.EndAsync(SIGQUIT, StopTimeout);
            await _process.DisposeAsync();
        }

        if (Directory.Exists(_folder))
        {
            Directory.Delete(_folder, recursive: true);
        }
    }

    private async Task StartAsync(int processor, int port, CancellationToken cancellation)
    {
        await Child.RunToEndAsync(
            Start(
                Tool.InitDb, "--pgdata", _folder, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-locale",
                "--no-sync", "--no-instructions"),
            cancellation);

        _process = Child.Start(Start(
            Tool.Postgres, "-D", _folder, "-h", "127.0.0.1", "-p", $"{port}", "-c", "unix_socket_directories=", "-c", "fsync=off",
            "-c", "autovacuum=off", "-c", $"max_connections={MaxConnections}"));
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(StartTimeout);
        try
        {
            await _process.WaitForOutputAsync("database system is ready to accept connections", limit.Token);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new BenchException($"{Tool.Postgres.Command} did not start within {StartTimeout.TotalSeconds} s:\n{_process.Output}");
        }

        await Child.RunToEndAsync(
            Start(Tool.Psql, "-h", "127.0.0.1", "-p", $"{port}", "-U", "postgres", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", Rows),
            cancellation);

        ProcessStartInfo Start(Tool tool, params string[] arguments)
        {
            string[] command = [.. Unprivileged(), tool.Location!, .. arguments];
            var start = Child.Pinned(processor, command[0], command[1..]);
            // Which any user may enter.
            start.WorkingDirectory = Path.GetTempPath();
            return start;
        }
    }

    /// <summary>What the command line of a program that refuses to run as root begins with.</summary>
    private static string[] Unprivileged()
    {
        if (!Environment.IsPrivilegedProcess)
        {
            return [];
        }

        var users = File.ReadLines("/etc/passwd").Select(static line => line.Split(':')).ToLookup(static fields => fields[0]);
        var user = users["postgres"].Concat(users["nobody"]).FirstOrDefault()
            ?? throw new BenchException("PostgreSQL does not run as root, and there is neither a user postgres nor nobody.");
        return ["setpriv", "--reuid", user[2], "--regid", user[3], "--clear-groups"];
    }
}
