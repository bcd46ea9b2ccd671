using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Polling;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>
/// An echo server in a process of its own, so that its loop does nothing else; and strace(1) on that loop's thread. A message that begins with
/// <see cref="Hold"/> holds the loop until <see cref="Release"/>.
/// </summary>
internal sealed class TracedServer : IDisposable
{
    internal const string Argument = "--traced-server";
    internal const char Hold = 'H';

    private readonly Process _server;
    private readonly string _log;
    private readonly string _thread;
    private Process? _strace;

    private TracedServer(Process server, string log, EndPoint endPoint, string thread)
    {
        _server = server;
        _log = log;
        _thread = thread;
        EndPoint = endPoint;
    }

    internal EndPoint EndPoint { get; }

    /// <summary>The server's side: tells its port and its loop's thread, and then serves until its input ends. A line of input releases the loop.</summary>
    internal static async Task RunAsync(string address)
    {
        // Tracing it is not left to its ancestors (PR_SET_PTRACER(2const)); where nobody restricts that, the call fails.
        _ = TestLibc.prctl(TestLibc.PR_SET_PTRACER, -1, 0, 0, 0);
        using var released = new SemaphoreSlim(0);
        var started = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var server = await EvioServer.StartAsync(
            new Events
            {
                Data = (connection, input) =>
                {
                    if (input[0] == Hold)
                    {
                        released.Wait();
                    }

                    connection.Write(input);
                    return EvioAction.None;
                },
            },
            address);
        _ = server.Loops[0].TryPost(_ => started.SetResult(TestLibc.gettid()), null);
        Console.WriteLine($"{(server.Addresses[0] as IPEndPoint)?.Port} {await started.Task}");
        while (Console.ReadLine() is not null)
        {
            released.Release();
        }
    }

    internal static async Task<TracedServer> StartAsync(string address, string log)
    {
        var startInfo = new ProcessStartInfo("dotnet", ["exec", typeof(TracedServer).Assembly.Location, Argument, address])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,

            // Each method is compiled once, when it is first called, and not again while its calls are traced. They are epoll's.
            Environment = { ["DOTNET_TieredCompilation"] = "0", [Poller.Variable] = "epoll" },
        };
        var server = Process.Start(startInfo)!;
        var line = (await server.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken).AsTask().Within())!.Split(' ');
        EndPoint endPoint = line[0].Length == 0
            ? new UnixDomainSocketEndPoint(address[(address.IndexOf("://", StringComparison.Ordinal) + 3)..])
            : IPEndPoint.Parse($"127.0.0.1:{line[0]}");
        return new TracedServer(server, log, endPoint, line[1]);
    }

    /// <summary>Attaches strace to the loop's thread.</summary>
    internal async Task TraceAsync()
    {
        // Strings are cut after the first byte, which tells the messages apart.
        _strace = Process.Start(new ProcessStartInfo("strace", ["-o", _log, "-s", "1", "-p", _thread]) { RedirectStandardError = true })!;
        var line = await _strace.StandardError.ReadLineAsync(TestContext.Current.CancellationToken).AsTask().Within();
        Assert.SkipWhen(
            line?.Contains("Operation not permitted", StringComparison.Ordinal) ?? false, "This environment does not let strace attach to a process.");
        Assert.EndsWith("attached", line, StringComparison.Ordinal);
    }

    internal void Release() => _server.StandardInput.WriteLine();

    /// <summary>Ends the server.</summary>
    /// <returns>The calls of its loop since <see cref="TraceAsync"/>, as strace writes them.</returns>
    internal async Task<List<string>> EndAsync()
    {
        _server.StandardInput.Close();
        await _server.WaitForExitAsync(TestContext.Current.CancellationToken).Within();
        await _strace!.WaitForExitAsync(TestContext.Current.CancellationToken).Within();
        return [.. await File.ReadAllLinesAsync(_log, TestContext.Current.CancellationToken)];
    }

    public void Dispose()
    {
        foreach (var process in new[] { _server, _strace })
        {
            if (process is { HasExited: false })
            {
                process.Kill();
            }

            process?.Dispose();
        }
    }
}
