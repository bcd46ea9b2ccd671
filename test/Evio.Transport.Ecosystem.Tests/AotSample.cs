using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text;
using Evio.Transport.Testing;

namespace Evio.Transport.Ecosystem.Tests;

/// <summary>The sample as a native binary, in a process of its own with all of its end points.</summary>
internal sealed class AotSample : IAsyncDisposable
{
    /// <summary>The environment variable that names the binary, as <c>dotnet publish -p:PublishAot=true</c> makes it.</summary>
    public const string PathVariable = "EVIO_AOT_SAMPLE";

    private static readonly string[] Switches =
        ["--raw-port", "--https-port", "--h2c-port", "--echo-port", "--udp-echo-port", "--native-http-port", "--redis-port"];

    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly TaskCompletionSource _started = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly int[] _ports;

    private AotSample(TransportKind kind)
    {
        // One for Kestrel's own address and one for each switch.
        _ports = FreePorts.Find(Switches.Length + 1);
        string[] arguments =
        [
            "--transport", kind.IsEvio() ? "evio" : "sockets",
            "--scheduling", kind == TransportKind.EvioThreadPool ? "threadpool" : "inline",
            "--urls", $"http://127.0.0.1:{_ports[^1]}",
            .. Switches.SelectMany((name, i) => new[] { name, _ports[i].ToString(CultureInfo.InvariantCulture) }),
        ];
        _process = new Process
        {
            StartInfo = new ProcessStartInfo(Path!, arguments)
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            },
        };
        _process.OutputDataReceived += OnOutput;
        _process.ErrorDataReceived += OnOutput;
    }

    public static string? Path => Environment.GetEnvironmentVariable(PathVariable);

    public Uri Http => new($"http://127.0.0.1:{_ports[^1]}/");

    public Uri Https => new($"https://127.0.0.1:{PortOf("--https-port")}/");

    public Uri H2c => new($"http://127.0.0.1:{PortOf("--h2c-port")}/");

    public int ProcessId => _process.Id;

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

    public static async Task<AotSample> StartAsync(TransportKind kind)
    {
        Assert.SkipWhen(Path is null, $"{PathVariable} does not name the sample's native binary.");
        var sample = new AotSample(kind);
        try
        {
            sample._process.Start();
            sample._process.BeginOutputReadLine();
            sample._process.BeginErrorReadLine();
            await Task.WhenAny(sample._started.Task, sample._process.WaitForExitAsync()).OrTimeout();
            Assert.True(sample._started.Task.IsCompleted, $"The sample has ended.\n{sample.Output}");
            return sample;
        }
        catch
        {
            await sample.DisposeAsync();
            throw;
        }
    }

    public IPEndPoint EndPointOf(string name) => new(IPAddress.Loopback, PortOf(name));

    public static HttpClient CreateClient(Uri address, Version version) =>
        new(new SocketsHttpHandler
        {
            UseProxy = false,
            SslOptions = { RemoteCertificateValidationCallback = static (_, certificate, _, _) => certificate?.Subject == "CN=localhost" },
        })
        {
            BaseAddress = address,
            Timeout = TestTimeouts.Default,
            DefaultRequestVersion = version,
            DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact,
        };

    /// <summary>Asks it to end, as a service manager does.</summary>
    /// <returns>Its exit code.</returns>
    public async Task<int> TerminateAsync()
    {
        using var kill = Process.Start("/bin/sh", ["-c", $"kill -TERM {_process.Id}"]);
        await kill.WaitForExitAsync().OrTimeout();
        await _process.WaitForExitAsync().OrTimeout();
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            _process.Kill();
            await _process.WaitForExitAsync().OrTimeout();
        }
        catch (InvalidOperationException)
        {
            // It was never started.
        }

        _process.Dispose();
    }

    private int PortOf(string name) => _ports[Array.IndexOf(Switches, name)];

    private void OnOutput(object sender, DataReceivedEventArgs line)
    {
        lock (_output)
        {
            _output.AppendLine(line.Data);
        }

        if (line.Data?.Contains("Application started", StringComparison.Ordinal) == true)
        {
            _started.TrySetResult();
        }
    }
}
