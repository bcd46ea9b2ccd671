using System.Diagnostics;
using System.Net;
using System.Text.Json;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.FileProviders;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What most applications answer, written as most are, in a process of its own; and strace(1) on it.</summary>
internal sealed class OrdinaryServer : IAsyncDisposable
{
    private const string Argument = "--ordinary-server";
    internal const int FileLength = 200 * 1024;
    private const int LargeLength = 1024 * 1024;

    private readonly Process _process;
    private readonly OrdinaryServerPorts _ports;
    private readonly string _log = Path.GetTempFileName();

    private OrdinaryServer(Process process, OrdinaryServerPorts ports)
    {
        _process = process;
        _ports = ports;
    }

    internal int Http => _ports.Http;

    internal int Https => _ports.Https;

    internal int Http2 => _ports.Http2;

    /// <param name="kind">The transport.</param>
    /// <param name="isPoolLimited">Whether the thread pool has one thread, and never gets another one.</param>
    internal static async Task<OrdinaryServer> StartAsync(TransportKind kind, bool isPoolLimited = false)
    {
        var startInfo = new ProcessStartInfo("dotnet", ["exec", typeof(OrdinaryServer).Assembly.Location, Argument, kind.ToString()])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,

            // One thread of the pool at a time, and methods that are compiled once: what is counted does not depend on who comes first.
            Environment = { ["DOTNET_PROCESSOR_COUNT"] = "1", ["DOTNET_TieredCompilation"] = "0" },
        };
        if (isPoolLimited)
        {
            startInfo.Environment["DOTNET_ThreadPool_ForceMaxWorkerThreads"] = "1";
        }

        var process = Process.Start(startInfo)!;
        var line = await process.StandardOutput.ReadLineAsync().OrTimeout();
        return new OrdinaryServer(process, JsonSerializer.Deserialize<OrdinaryServerPorts>(line ?? throw new InvalidOperationException("The server did not start."))!);
    }

    /// <summary>Lets one of the handlers go on that hold their thread.</summary>
    internal void Release() => _process.StandardInput.WriteLine();

    /// <summary>Counts the server's system calls while something is done.</summary>
    internal async Task<SystemCalls> CountAsync(Func<Task> action)
    {
        using var strace = Process.Start(new ProcessStartInfo(
            "strace", ["-f", "-e", "trace=sendto,sendmsg,recvfrom,recvmsg,write", "-s", "0", "-o", _log, "-p", $"{_process.Id}"])
        { RedirectStandardError = true })!;
        var line = await strace.StandardError.ReadLineAsync().OrTimeout();
        Assert.SkipWhen(line?.Contains("Operation not permitted", StringComparison.Ordinal) ?? false, "This environment does not let strace attach to a process.");
        Assert.Contains("attached", line, StringComparison.Ordinal);
        await action();
        using (var interrupt = Process.Start("kill", ["-INT", $"{strace.Id}"]))
        {
            await interrupt.WaitForExitAsync().OrTimeout();
        }

        await strace.StandardError.ReadToEndAsync().OrTimeout();
        await strace.WaitForExitAsync().OrTimeout();
        return SystemCalls.Parse(await File.ReadAllLinesAsync(_log));
    }

    public async ValueTask DisposeAsync()
    {
        using (_process)
        {
            using var client = new HttpClient();
            _ = await client.GetAsync(new Uri($"http://127.0.0.1:{Http}/stop")).OrTimeout();
            await _process.WaitForExitAsync().OrTimeout();
            Assert.Equal(0, _process.ExitCode);
        }

        File.Delete(_log);
    }

    /// <summary>Runs the server, if the arguments are its own, until it is asked to stop.</summary>
    internal static async Task<bool> TryRunAsync(string[] args)
    {
        if (args is not [Argument, var kind])
        {
            return false;
        }

        // Tracing it is not left to its ancestors; where nobody restricts that, the call fails.
        _ = ChildServer.PermitTracing();
        var files = Directory.CreateTempSubdirectory("evio-");
        try
        {
            File.WriteAllBytes(Path.Combine(files.FullName, "file"), new byte[FileLength]);
            await ServeAsync(Enum.Parse<TransportKind>(kind), files.FullName);
        }
        finally
        {
            files.Delete(recursive: true);
        }

        return true;
    }

    private static async Task ServeAsync(TransportKind kind, string files)
    {
        var builder = WebApplication.CreateBuilder();
        builder.Logging.ClearProviders();
        builder.Services.AddResponseCompression();
        new TransportSettings { LoopCount = 1 }.Use(kind, builder.WebHost);
        builder.WebHost.ConfigureKestrel(static options =>
        {
            options.Listen(IPAddress.Loopback, 0);
            options.Listen(IPAddress.Loopback, 0, static listen => listen.UseHttps(TestCertificate.Instance));
            options.Listen(IPAddress.Loopback, 0, static listen => listen.Protocols = HttpProtocols.Http2);
        });
        await using var application = builder.Build();
        application.UseWhen(static context => context.Request.Path == "/gzip", static branch => branch.UseResponseCompression());
        application.UseStaticFiles(new StaticFileOptions
        {
            FileProvider = new PhysicalFileProvider(files),
            RequestPath = "/static",
            ServeUnknownFileTypes = true,
        });
        Item[] items = [.. Enumerable.Range(0, 50).Select(static i => new Item(i, $"item {i}"))];
        application.MapGet("/string", static () => "Hello, World!");
        application.MapGet("/object", () => items[1]);
        application.MapPost("/object", static (Item item) => item);
        application.MapGet("/gzip", () => items);
        application.MapGet("/items", () => ItemsAsync(items));
        application.MapGet("/file", () => Results.File(Path.Combine(files, "file"), "application/octet-stream"));
        application.MapGet("/yield", static async () =>
        {
            await Task.Yield();
            return "Hello, World!";
        });
        application.MapGet("/delay", static async () =>
        {
            await Task.Delay(1);
            return "Hello, World!";
        });
        application.MapGet("/held", static async context =>
        {
            if (context.Request.Query.ContainsKey("yields"))
            {
                await Task.Yield();
            }

            await context.Response.WriteAsync("first");
            _ = Console.ReadLine();
            await context.Response.WriteAsync(", last");
        });
        application.MapGet("/held-queue", static async context =>
        {
            // Whatever comes to the end of the pool's queue comes after this.
            var released = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            await Task.Yield();
            ThreadPool.UnsafeQueueUserWorkItem(
                _ =>
                {
                    _ = Console.ReadLine();
                    released.SetResult();
                },
                null);
            await context.Response.WriteAsync("first");
            await released.Task;
            await context.Response.WriteAsync(", last");
        });
        application.MapGet("/large", static async context =>
        {
            context.Response.ContentLength = LargeLength;
            await context.Response.Body.WriteAsync(new byte[LargeLength]);
        });
        application.MapGet("/stop", static (IHostApplicationLifetime lifetime) => lifetime.StopApplication());
        await application.StartAsync();
        int[] ports = [.. application.Urls.Select(static url => new Uri(url).Port)];
        Console.WriteLine(JsonSerializer.Serialize(new OrdinaryServerPorts(ports[0], ports[1], ports[2])));
        await application.WaitForShutdownAsync();
    }

    private static async IAsyncEnumerable<Item> ItemsAsync(Item[] items)
    {
        for (var i = 0; i < 20; i++)
        {
            if (i % 5 == 0)
            {
                await Task.Yield();
            }

            yield return items[i];
        }
    }

    private sealed record Item(int Id, string Name);
}

internal sealed record OrdinaryServerPorts(int Http, int Https, int Http2);

/// <summary>How many sends, receives and wake-ups there were.</summary>
internal sealed record SystemCalls(int Sends, int Receives, int WakeUps)
{
    /// <param name="lines">As strace -f writes them: the thread, the call, what it returned. One that others came between is split into two.</param>
    internal static SystemCalls Parse(IReadOnlyCollection<string> lines)
    {
        int Count(params string[] names) => lines.Count(line => names.Any(name => line.AsSpan(line.IndexOf(' ', StringComparison.Ordinal)).TrimStart().StartsWith($"{name}(", StringComparison.Ordinal)));
        return new SystemCalls(Count("sendto", "sendmsg"), Count("recvfrom", "recvmsg"), Count("write"));
    }
}
