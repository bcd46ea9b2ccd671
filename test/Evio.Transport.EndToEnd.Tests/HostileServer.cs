using System.Diagnostics;
using System.Globalization;
using System.Net;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>
/// A server in a process of its own, which what it calls throws at: nothing of it may end the process. It serves until its standard input ends, and is then to stop as
/// any server does.
/// </summary>
internal sealed class HostileServer : IAsyncDisposable
{
    /// <summary>What <c>/stream</c> sends.</summary>
    public const int Streamed = 500_000;

    private const string Argument = "--hostile-server";
    private const int CallbacksForEachThrow = 10;

    private readonly Process _process;
    private readonly Task<string> _errors;

    private HostileServer(Process process, Task<string> errors, int http, int echo)
    {
        _process = process;
        _errors = errors;
        Address = new Uri($"http://127.0.0.1:{http}/");
        Echo = new IPEndPoint(IPAddress.Loopback, echo);
    }

    /// <summary>What throws.</summary>
    public enum Part
    {
        Logger,
        MeterListener,
        MemoryPool,
        Callbacks,
        UnhandledExceptionHandler,
    }

    /// <summary>Where Kestrel serves.</summary>
    public Uri Address { get; }

    /// <summary>Where the callback API sends everything back.</summary>
    public IPEndPoint Echo { get; }

    public static async Task<HostileServer> StartAsync(TransportKind kind, Part part, int seed)
    {
        string[] arguments = ["exec", typeof(HostileServer).Assembly.Location, Argument, kind.ToString(), part.ToString(), seed.ToString(CultureInfo.InvariantCulture)];
        var process = Process.Start(new ProcessStartInfo("dotnet", arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        var errors = process.StandardError.ReadToEndAsync();
        if (await process.StandardOutput.ReadLineAsync().OrTimeout() is not { } line)
        {
            throw new InvalidOperationException($"The child process did not start: {await errors.OrTimeout()}");
        }

        var ports = line.Split(' ').Select(static port => int.Parse(port, CultureInfo.InvariantCulture)).ToArray();
        return new HostileServer(process, errors, ports[0], ports[1]);
    }

    /// <summary>Fails the test with what the process said at its end, if it has ended while something else failed.</summary>
    /// <param name="failed">What failed, which is thrown otherwise.</param>
    public async Task ExplainAsync(Task failed)
    {
        // A process that dies takes its time.
        await Task.WhenAny(failed, _process.WaitForExitAsync());
        if (failed.IsFaulted || _process.HasExited)
        {
            await Task.WhenAny(_process.WaitForExitAsync(), Task.Delay(TestTimeouts.Default));
            await AssertLivesAsync();
        }

        await failed;
    }

    /// <summary>Fails the test if the process has ended.</summary>
    public async Task AssertLivesAsync()
    {
        if (_process.HasExited)
        {
            Assert.Fail($"The server's process has ended with {_process.ExitCode}: {await _errors.OrTimeout()}");
        }
    }

    /// <summary>Ends the server in an orderly way, which it must take.</summary>
    public async Task StopAsync()
    {
        await AssertLivesAsync();
        _process.StandardInput.Close();
        await _process.WaitForExitAsync().OrTimeout();
        Assert.True(_process.ExitCode == 0, $"The server's process has ended with {_process.ExitCode}: {await _errors.OrTimeout()}");
    }

    public async ValueTask DisposeAsync()
    {
        using (_process)
        {
            if (!_process.HasExited)
            {
                _process.Kill();
                await _process.WaitForExitAsync().OrTimeout();
            }
        }
    }

    /// <summary>Runs the child, if the arguments are those of one.</summary>
    internal static async Task<bool> TryRunAsync(string[] args)
    {
        if (args is not [Argument, var kind, var part, var seed])
        {
            return false;
        }

        await ServeAsync(Enum.Parse<TransportKind>(kind), Enum.Parse<Part>(part), new Hostility(int.Parse(seed, CultureInfo.InvariantCulture)));
        return true;
    }

    private static async Task ServeAsync(TransportKind kind, Part part, Hostility hostility)
    {
        var pools = new StrictMemoryPoolFactory();
        using var listener = part == Part.MeterListener ? HostileMeasurements.Listen(hostility) : null;
        await using var group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = 2,
            Scheduling = Enum.Parse<LoopScheduling>(kind.Scheduling().ToString()),
            OnUnhandledException = (_, _) => (part == Part.UnhandledExceptionHandler ? hostility : null)?.MayThrow(calls: 2),
        });
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders().SetMinimumLevel(LogLevel.Trace);
        if (part == Part.Logger)
        {
            builder.Logging.AddProvider(new HostileLogs(hostility));
        }

        builder.Services.AddSingleton<IMemoryPoolFactory<byte>>(part == Part.MemoryPool ? new HostilePools(hostility, pools) : pools);
        new TransportSettings { LoopCount = 2, MaxBlockedThreads = 1 }.Use(kind, builder.WebHost);
        builder.WebHost.ConfigureKestrel(static options => options.Listen(IPAddress.Loopback, 0));
        await using (var application = builder.Build())
        {
            application.Run(context => AnswerAsync(context, hostility, group));
            await application.StartAsync();
            await using var callbacks = await EvioServer.StartAsync(
                Events(part == Part.Callbacks ? hostility : null, kind == TransportKind.EvioAdaptive ? LoopScheduling.Adaptive : LoopScheduling.Inline),
                "tcp://127.0.0.1:0");
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{new Uri(application.Urls.Single()).Port} {((IPEndPoint)callbacks.Addresses[0]).Port}"));
            await Console.In.ReadToEndAsync();
            await application.StopAsync();
            await callbacks.StopAsync();
        }

        pools.AssertKept();
    }

    private static async Task AnswerAsync(HttpContext context, Hostility hostility, EventLoopGroup group)
    {
        switch (context.Request.Path.Value)
        {
            case "/echo":
                await Applications.EchoWholeAsync(context);
                break;
            case "/stream":
                await context.Response.Body.WriteAsync(TestData.Bytes(Streamed));
                break;
            case "/abort":
                context.Abort();
                break;
            case "/block":
                // Long enough for a loop to be lost.
                Thread.Sleep(20);
                await context.Response.WriteAsync("served");
                break;
            case "/unhandled":
                await ThrowOnLoopsAsync(group);
                await context.Response.WriteAsync("served");
                break;
            case "/calm":
                hostility.Calm();
                break;
            default:
                await context.Response.WriteAsync("served");
                break;
        }
    }

    /// <summary>Has posted calls throw on every loop, and then make sure that it is still there.</summary>
    private static async Task ThrowOnLoopsAsync(EventLoopGroup group)
    {
        foreach (var loop in group.Loops)
        {
            var made = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Assert.True(loop.TryPost(static _ => throw new InvalidOperationException("On purpose."), null));
            Assert.True(loop.TryPost(_ => made.SetResult(), null));
            await made.Task;
        }
    }

    private static Events Events(Hostility? hostility, LoopScheduling scheduling) => new()
    {
        NumLoops = 2,
        Scheduling = scheduling,
        MaxBlockedThreads = 1,
        ThreadsSaturated = _ => hostility?.MayThrow(calls: 2),
        Opened = (_, ref _) => Act(hostility),
        Data = (connection, input) =>
        {
            connection.Write(input);
            return Act(hostility);
        },
        Closed = (_, _) => Act(hostility),
    };

    private static EvioAction Act(Hostility? hostility)
    {
        hostility?.MayThrow(CallbacksForEachThrow);
        return EvioAction.None;
    }
}
