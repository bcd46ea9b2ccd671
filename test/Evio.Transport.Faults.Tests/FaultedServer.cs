using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Evio.Transport.Testing;

namespace Evio.Transport.Faults.Tests;

/// <summary>The process of <see cref="FaultServer"/>, with test/FaultInjection in it, seen from the test.</summary>
public sealed class FaultedServer : IAsyncLifetime
{
    internal const string Done = "done";

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("evio-");
    private readonly CancellationTokenSource _ended = new();
    private FaultControl? _control;
    private Process? _process;
    private FaultServerPorts? _ports;
    private Socket? _echo;
    private Socket? _unixEcho;
    private EchoClient[] _steady = [];
    private int _descriptors;

    /// <summary>Why there are no faults here; <see langword="null"/> if there are.</summary>
    internal string? Missing { get; private set; }

    internal FaultControl Control => _control!;

    internal FaultServerPorts Ports => _ports!;

    /// <summary>The ports of the stream servers.</summary>
    internal int[] StreamPorts => [.. Ports.Kestrel, .. Ports.Callbacks];

    /// <summary>The port of a server of the test's own that sends everything back.</summary>
    internal int EchoPort => ((IPEndPoint)_echo!.LocalEndPoint!).Port;

    private string Library => Path.Combine(_directory.FullName, "faults.so");

    internal string UnixEchoPath => Path.Combine(_directory.FullName, "echo");

    public async ValueTask InitializeAsync()
    {
        Missing = !OperatingSystem.IsLinux() ? "The faults are injected with LD_PRELOAD into the GNU C library of Linux."
            : !HasCompiler() ? "There is no C compiler (cc)."
            : null;
        if (Missing is not null)
        {
            return;
        }

        using (var build = Process.Start("sh", [Path.Combine(AppContext.BaseDirectory, "FaultInjection", "build.sh"), Library]))
        {
            await build.WaitForExitAsync().OrTimeout();
            Assert.Equal(0, build.ExitCode);
        }

        _echo = Listen(new IPEndPoint(IPAddress.Loopback, 0));
        _unixEcho = Listen(new UnixDomainSocketEndPoint(UnixEchoPath));
        await StartAsync();
    }

    /// <summary>Starts anew, after something that was not to happen to the server.</summary>
    internal async Task RestartAsync()
    {
        Stop();
        await StartAsync();
    }

    private async Task StartAsync()
    {
        var file = Path.Combine(_directory.FullName, "control");
        _control = new FaultControl(file);
        _process = Process.Start(new ProcessStartInfo("dotnet", ["exec", typeof(FaultedServer).Assembly.Location, FaultServer.Argument])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            Environment = { ["LD_PRELOAD"] = Library, ["EVIO_FAULTS"] = file, ["EVIO_POLLER"] = "epoll" },
        })!;
        _ports = JsonSerializer.Deserialize<FaultServerPorts>(await ReadAnswerAsync());
        Assert.True(_control.IsLoaded, "The library is not in the server, or not laid out as the test thinks.");

        _steady = await Task.WhenAll(StreamPorts.Select(static port => EchoClient.ConnectAsync(port)));
        await WarmUpAsync();
        _descriptors = (int)await Eventually.SettlesAsync(() => CountDescriptors());
    }

    public async ValueTask DisposeAsync()
    {
        await _ended.CancelAsync();
        if (_process is not null)
        {
            _process.StandardInput.Close();
            await _process.WaitForExitAsync().OrTimeout();
            Assert.Equal(0, _process.ExitCode);
            Stop();
        }

        _echo?.Dispose();
        _unixEcho?.Dispose();
        _ended.Dispose();
        _directory.Delete(recursive: true);
    }

    /// <summary>Has the server do something.</summary>
    /// <returns><see cref="Done"/>, or the exception that it ended with.</returns>
    internal async Task<string> CommandAsync(string command)
    {
        await _process!.StandardInput.WriteLineAsync(command).OrTimeout();
        await _process.StandardInput.FlushAsync().OrTimeout();
        return JsonSerializer.Deserialize<string>(await ReadAnswerAsync())!;
    }

    /// <summary>Connects those anew that faults have ended.</summary>
    internal async Task RestoreSteadyAsync()
    {
        for (var i = 0; i < _steady.Length; i++)
        {
            if (!await _steady[i].TryExchangeAsync(1000))
            {
                _steady[i] = await EchoClient.ConnectAsync(StreamPorts[i]);
            }
        }
    }

    /// <summary>Verified traffic on the connections that were there before.</summary>
    internal Task ExchangeOnSteadyAsync() => Task.WhenAll(_steady.Select(static client => client.ExchangeAsync(20_000)));

    /// <summary>
    /// The end of a fault: nothing fails any more. Old and new connections are served by every server, all loops live, and nothing is left of what the fault
    /// hit: no descriptor, block, thread or connection object. No call ever reached a descriptor that was closed.
    /// </summary>
    internal async Task AssertUnharmedAsync()
    {
        Control.Disarm();
        await ExchangeOnSteadyAsync();
        foreach (var port in StreamPorts)
        {
            using var fresh = await EchoClient.ConnectAsync(port);
            await fresh.ExchangeAsync(1000);
        }

        foreach (var port in Ports.Datagrams)
        {
            await ExchangeDatagramAsync(port);
        }

        await Eventually.HoldsAsync(() => CountDescriptors() == _descriptors, () => $"{_descriptors} descriptors before, {CountDescriptors()} now");
        FaultServerState? state = null;
        var expected = _steady.Length;
        await Eventually.HoldsAsync(
            async () =>
            {
                state = JsonSerializer.Deserialize<FaultServerState>(await CommandAsync("state"))!;
                return (state.Blocks, state.Connections, state.Contexts) == (0, expected, expected);
            },
            () => $"{state}");
        Assert.Empty(state!.Violations);
        var loops = StreamPorts.Length * FaultServer.Loops;
        Assert.Equal(loops, state.Loops);

        // An adaptive server keeps threads that were late for a while: as many as may be late, and one more for each loop.
        var spares = FaultServer.CallbackModes.Length * (FaultServer.MaxBlockedThreads + FaultServer.Loops);
        await Eventually.HoldsAsync(() => CountLoopThreads() is var threads && threads >= loops && threads <= loops + spares, () => $"{CountLoopThreads()} threads");
        Assert.Equal(0, Control.CallsOnClosed);
    }

    /// <summary>Sends a datagram and gets it back.</summary>
    /// <param name="port">Where to.</param>
    /// <param name="lost">How many to send before, whose replies are lost by as many faults.</param>
    internal async Task ExchangeDatagramAsync(int port, int lost = 0)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        await socket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port)).OrTimeout();
        for (var i = 0; i < lost; i++)
        {
            _ = await socket.SendAsync(TestData.Bytes(100, seed: i)).OrTimeout();
            await Eventually.HoldsAsync(() => Control.Met() > i);
        }

        var sent = TestData.Bytes(100, seed: lost);
        _ = await socket.SendAsync(sent).OrTimeout();
        var buffer = new byte[1000];
        var count = await socket.ReceiveAsync(buffer).OrTimeout();
        TestData.AssertSame(sent, buffer.AsMemory(0, count));
    }

    private void Stop()
    {
        Array.ForEach(_steady, static client => client.Dispose());
        _steady = [];
        _process!.Kill();
        _process.Dispose();
        _control!.Dispose();
    }

    private static bool HasCompiler() =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(static path => File.Exists(Path.Combine(path, "cc")));

    private async Task<string> ReadAnswerAsync() =>
        await _process!.StandardOutput.ReadLineAsync().OrTimeout() ?? throw new InvalidOperationException("The server's process has ended.");

    /// <summary>Makes everything once that opens something for good, in the runtime too.</summary>
    private async Task WarmUpAsync()
    {
        var commands = FaultServer.Modes
            .SelectMany(mode => (string[])[$"start {mode}", $"start-unix {mode}", $"inherit {mode}", $"connect {mode} {EchoPort}", $"connect-unix {mode} {UnixEchoPath}"])
            .Concat(FaultServer.CallbackModes.Select(static mode => $"datagrams {mode}"));
        foreach (var command in (string[])["wake", .. commands, "state"])
        {
            var answer = await CommandAsync(command);
            Assert.True(answer == Done || command == "state", $"{command}: {answer}");
        }

        foreach (var port in Ports.Datagrams)
        {
            await ExchangeDatagramAsync(port);
        }

        foreach (var port in Ports.Callbacks)
        {
            using var detached = await EchoClient.ConnectAsync(port);
            await detached.Socket.SendAllAsync(new[] { FaultServer.Detach }).OrTimeout();
            Assert.Equal(FaultServer.Detached, await detached.Socket.ReceiveToEndAsync().OrTimeout());
        }
    }

    /// <summary>Sockets, pollers and wake-ups of the server. Not files: the runtime keeps open what it loads.</summary>
    private int CountDescriptors() => new DirectoryInfo(string.Create(CultureInfo.InvariantCulture, $"/proc/{_process!.Id}/fd"))
        .EnumerateFileSystemInfos()
        .Count(static entry => entry.LinkTarget is { } target && !target.StartsWith('/'));

    private int CountLoopThreads() => Directory.EnumerateDirectories(string.Create(CultureInfo.InvariantCulture, $"/proc/{_process!.Id}/task"))
        .Count(static task =>
        {
            try
            {
                var name = File.ReadAllText($"{task}/comm");
                return name.StartsWith("Evio loop", StringComparison.Ordinal) || name.StartsWith("short life", StringComparison.Ordinal);
            }
            catch (IOException)
            {
                // It ended meanwhile.
                return false;
            }
        });

    private Socket Listen(EndPoint endPoint)
    {
        var listener = new Socket(endPoint.AddressFamily, SocketType.Stream, endPoint is IPEndPoint ? ProtocolType.Tcp : ProtocolType.Unspecified);
        listener.Bind(endPoint);
        listener.Listen();
        _ = AcceptAsync(listener);
        return listener;
    }

    private async Task AcceptAsync(Socket listener)
    {
        try
        {
            while (true)
            {
                _ = SendBackAsync(await listener.AcceptAsync(_ended.Token));
            }
        }
        catch (OperationCanceledException)
        {
            // The end of the tests.
        }
    }

    private async Task SendBackAsync(Socket socket)
    {
        using (socket)
        {
            try
            {
                var buffer = new byte[4096];
                for (int count; (count = await socket.ReceiveAsync(buffer, _ended.Token)) > 0;)
                {
                    await socket.SendAllAsync(buffer.AsMemory(0, count));
                }
            }
            catch (Exception exception) when (exception is SocketException or OperationCanceledException)
            {
                // The server ended its attempt, which is what it is asked about.
            }
        }
    }
}
