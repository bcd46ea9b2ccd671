using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>A server in a process of its own, for what can only be set for a whole process. It serves until its standard input ends.</summary>
/// <remarks><c>GET /abort</c> aborts, everything else is answered "served".</remarks>
internal sealed partial class ChildServer : IAsyncDisposable
{
    private const string Argument = "--child-server";
    private const string FinOnErrorSwitch = "Microsoft.AspNetCore.Server.Kestrel.FinOnError";
    private const int FirstActivatedDescriptor = 3;

    private readonly Process _process;

    private ChildServer(Process process, IPEndPoint endPoint)
    {
        _process = process;
        EndPoint = endPoint;
    }

    internal enum Mode
    {
        FinOnError,

        /// <summary>Binds a socket as systemd would, becomes <see cref="Activated"/>, and leaves it that as a descriptor.</summary>
        Activating,
        Activated,
    }

    public IPEndPoint EndPoint { get; }

    public static async Task<ChildServer> StartAsync(TransportKind kind, Mode mode)
    {
        var process = Process.Start(new ProcessStartInfo("dotnet", Command(kind, mode))
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!;
        var line = await process.StandardOutput.ReadLineAsync().OrTimeout();
        return new ChildServer(process, IPEndPoint.Parse(line ?? throw new InvalidOperationException("The child process did not start.")));
    }

    public Task<Socket> ConnectAsync() => SocketExtensions.ConnectAsync(EndPoint);

    /// <summary>Ends the server in an orderly way.</summary>
    public async ValueTask DisposeAsync()
    {
        using (_process)
        {
            _process.StandardInput.Close();
            await _process.WaitForExitAsync().OrTimeout();
            Assert.Equal(0, _process.ExitCode);
        }
    }

    /// <summary>Runs the child, if the arguments are those of one.</summary>
    internal static async Task<bool> TryRunAsync(string[] args)
    {
        if (args is not [Argument, var kindName, var modeName])
        {
            return false;
        }

        var kind = Enum.Parse<TransportKind>(kindName);
        var mode = Enum.Parse<Mode>(modeName);
        switch (mode)
        {
            case Mode.Activating:
                Activate(kind);
                break;
            case Mode.FinOnError:
                AppContext.SetSwitch(FinOnErrorSwitch, true);
                break;
        }

        await ServeAsync(kind, mode);
        return true;
    }

    private static string[] Command(TransportKind kind, Mode mode) =>
        ["exec", typeof(ChildServer).Assembly.Location, Argument, kind.ToString(), mode.ToString()];

    private static async Task ServeAsync(TransportKind kind, Mode mode)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        TransportSettings.Default.Use(kind, builder.WebHost);
        builder.WebHost.ConfigureKestrel(options =>
        {
            if (mode is Mode.Activated)
            {
                options.UseSystemd();
            }
            else
            {
                options.Listen(IPAddress.Loopback, 0);
            }
        });
        await using var application = builder.Build();
        application.Run(static context =>
        {
            if (context.Request.Path == "/abort")
            {
                context.Abort();
                return Task.CompletedTask;
            }

            return context.Response.WriteAsync("served");
        });
        await application.StartAsync();
        var address = new Uri(application.Urls.Single());
        Console.WriteLine($"{address.Host}:{address.Port}");
        await Console.In.ReadToEndAsync();
        await application.StopAsync();
    }

    /// <summary>sd_listen_fds(3): the descriptors from 3 on, as many as LISTEN_FDS says, are for the process LISTEN_PID.</summary>
    private static void Activate(TransportKind kind)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        string?[] variables =
        [
            $"PATH={Environment.GetEnvironmentVariable("PATH")}",
            $"DOTNET_ROOT={Environment.GetEnvironmentVariable("DOTNET_ROOT")}",
            $"LISTEN_PID={Environment.ProcessId}",
            "LISTEN_FDS=1",
            null,
        ];
        var program = Environment.ProcessPath!;

        // Whatever the runtime uses 3 for ends here, together with the runtime.
        _ = dup2((int)listener.Handle, FirstActivatedDescriptor);
        _ = execve(program, [program, .. Command(kind, Mode.Activated), null], variables);
        throw new InvalidOperationException(string.Create(CultureInfo.InvariantCulture, $"execve(2) failed: {Marshal.GetLastPInvokeError()}"));
    }

    [LibraryImport("libc", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int dup2(int from, int to);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int execve(string path, string?[] arguments, string?[] variables);
}
