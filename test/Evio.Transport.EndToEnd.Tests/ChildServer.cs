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

        /// <summary>Listens on all addresses where the system knows no IPv6.</summary>
        AnyIPWithoutIPv6,

        /// <summary>Listens on localhost where the system knows no IPv6.</summary>
        LocalhostWithoutIPv6,
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
            case Mode.AnyIPWithoutIPv6 or Mode.LocalhostWithoutIPv6:
                ForbidIPv6();
                break;
            case Mode.FinOnError:
                AppContext.SetSwitch(FinOnErrorSwitch, true);
                break;
        }

        await ServeAsync(kind, mode);
        return true;
    }

    /// <summary>Leaves it to all processes of the user to trace this one (PR_SET_PTRACER(2const)).</summary>
    internal static int PermitTracing()
    {
        const int PR_SET_PTRACER = 0x59616d61;
        return prctl(PR_SET_PTRACER, -1, 0, 0, 0);
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
            switch (mode)
            {
                case Mode.Activated:
                    options.UseSystemd();
                    break;
                case Mode.AnyIPWithoutIPv6:
                    options.ListenAnyIP(0);
                    break;
                case Mode.LocalhostWithoutIPv6:
                    options.ListenLocalhost(FreePort());
                    break;
                default:
                    options.Listen(IPAddress.Loopback, 0);
                    break;
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

        // All that these modes listen on answers there.
        Console.WriteLine(new IPEndPoint(IPAddress.Loopback, address.Port));
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

    private static int FreePort()
    {
        using var free = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        free.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)free.LocalEndPoint!).Port;
    }

    /// <summary>From now on socket(AF_INET6) fails in this process as on a kernel without IPv6: a filter of seccomp(2).</summary>
    private static unsafe void ForbidIPv6()
    {
        const int PR_SET_NO_NEW_PRIVS = 38;
        const int SECCOMP_SET_MODE_FILTER = 1;
        const int SECCOMP_FILTER_FLAG_TSYNC = 1;
        const int EAFNOSUPPORT = 97;
        const int AF_INET6 = 10;
        var (seccomp, socket) = RuntimeInformation.ProcessArchitecture is Architecture.X64 ? (317, 41) : (277, 198);

        // struct sock_filter { u16 code; u8 jt, jf; u32 k; }; struct seccomp_data { int nr; u32 arch; u64 ip; u64 args[6]; }
        var program = stackalloc ulong[]
        {
            Instruction(0x20, 0, 0, 0),                          // load nr
            Instruction(0x15, 0, 3, (uint)socket),               // other than socket(2): allow
            Instruction(0x20, 0, 0, 16),                         // load the lower half of the first argument
            Instruction(0x15, 0, 1, AF_INET6),                   // another family: allow
            Instruction(0x06, 0, 0, 0x0005_0000 | EAFNOSUPPORT), // SECCOMP_RET_ERRNO
            Instruction(0x06, 0, 0, 0x7FFF_0000),                // SECCOMP_RET_ALLOW
        };
        var filter = new Filter { Length = 6, Program = program };
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) != 0)
        {
            throw new InvalidOperationException(string.Create(CultureInfo.InvariantCulture, $"seccomp(2) failed: {Marshal.GetLastPInvokeError()}"));
        }

        static ulong Instruction(ushort code, byte onTrue, byte onFalse, uint operand) =>
            code | ((ulong)onTrue << 16) | ((ulong)onFalse << 24) | ((ulong)operand << 32);
    }

    [LibraryImport("libc", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int prctl(int option, nint first, nint second, nint third, nint fourth);

    [LibraryImport("libc", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static unsafe partial nint syscall(nint number, nint first, nint second, Filter* third);

    [LibraryImport("libc", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int dup2(int from, int to);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int execve(string path, string?[] arguments, string?[] variables);

    /// <summary>struct sock_fprog.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private unsafe struct Filter
    {
        public ushort Length;
        public ulong* Program;
    }
}
