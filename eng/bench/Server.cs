using System.Net;
using System.Text;
using Evio.Transport.Testing;

namespace Evio.Bench;

/// <summary>A variant as a running process on the server's processor.</summary>
internal sealed class Server : IAsyncDisposable
{
    private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(60);

    private readonly Child _process;
    private readonly ServerPort _kind;

    private Server(Variant variant, ServerPort kind, int port, Child process)
    {
        Variant = variant;
        Port = port;
        _kind = kind;
        _process = process;
    }

    /// <summary>Switches of an application with which it logs nothing of a request.</summary>
    public static IReadOnlyList<string> WithoutLog { get; } =
    [
        "--Logging:LogLevel:Default", "None",
        "--Logging:LogLevel:Microsoft.AspNetCore", "None",
        // The harness waits for its line at the start. It logs nothing while requests are answered.
        "--Logging:LogLevel:Microsoft.Hosting.Lifetime", "Information",
    ];

    public Variant Variant { get; }

    public int Port { get; }

    public Child Process => _process;

    /// <param name="program">The variant's.</param>
    /// <param name="switches">What an application gets besides its transport and its port.</param>
    public static async Task<Server> StartAsync(
        Variant variant, string program, ServerPort port, IReadOnlyList<string> switches, int processor, CancellationToken cancellation)
    {
        var number = FreePorts.Find(1)[0];
        string[] arguments = variant.IsApplication
            ? ["--transport", variant.Transport!, "--scheduling", variant.Scheduling, "--loops", "1", .. ApplicationAddress(port, number), .. switches]
            : [EpollServerSwitch(port), $"{number}"];
        var start = Child.Pinned(processor, program, arguments);

        // Or methods wait for their better code until none has been called for the first time for a while, again and again.
        start.Environment["DOTNET_TC_CallCountingDelayMs"] = "0";

        const string inlineCompletions = "DOTNET_SYSTEM_NET_SOCKETS_INLINE_COMPLETIONS";
        start.Environment.Remove(inlineCompletions);
        if (variant == Variant.SocketsInline)
        {
            start.Environment[inlineCompletions] = "1";
        }

        var server = new Server(variant, port, number, Child.Start(start));
        try
        {
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(StartTimeout);
            await server._process.WaitForOutputAsync(variant.IsApplication ? "Application started." : "serving", limit.Token);
            return server;
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            await server.DisposeAsync();
            throw new BenchException($"{variant.Name} did not start within {StartTimeout.TotalSeconds} s:\n{server._process.Output}");
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>
    /// Status, header fields, body and trailers of the answer, its date left out. How a body is divided into chunks is the server's affair.
    /// </summary>
    public async Task<string> ProbeAsync(Probe probe, CancellationToken cancellation)
    {
        using var client = new HttpClient(new SocketsHttpHandler
        {
            UseProxy = false,
            // The sample has made its certificate by itself.
            SslOptions = { RemoteCertificateValidationCallback = static (_, certificate, _, _) => certificate?.Subject == "CN=localhost" },
        });
        using var request = new HttpRequestMessage(
            probe.Json is null && probe.Call is null ? HttpMethod.Get : HttpMethod.Post,
            $"{(_kind == ServerPort.Https ? "https" : "http")}://127.0.0.1:{Port}{probe.Path}")
        {
            Version = _kind == ServerPort.H2c ? HttpVersion.Version20 : HttpVersion.Version11,
            VersionPolicy = HttpVersionPolicy.RequestVersionExact,
        };
        if (probe.Json is not null)
        {
            request.Content = new StringContent(probe.Json, Encoding.UTF8, "application/json");
        }
        else if (probe.Call is not null)
        {
            request.Content = new ByteArrayContent(probe.Call.Frame()) { Headers = { ContentType = new(GrpcCall.ContentType) } };
            request.Headers.TE.Add(new("trailers"));
        }

        if (probe.AcceptEncoding is not null)
        {
            request.Headers.Add("Accept-Encoding", probe.AcceptEncoding);
        }

        try
        {
            using var response = await client.SendAsync(request, cancellation);
            var answer = new StringBuilder();
            answer.AppendLine(Invariant($"HTTP/{response.Version} {(int)response.StatusCode} {response.ReasonPhrase}"));
            foreach (var (name, values) in response.Headers.NonValidated.Concat(response.Content.Headers.NonValidated).Where(static field => field.Key != "Date"))
            {
                answer.AppendLine(Invariant($"{name}: {values}"));
            }

            answer.AppendLine().Append(Encoding.Latin1.GetString(await response.Content.ReadAsByteArrayAsync(cancellation)));
            foreach (var (name, values) in response.TrailingHeaders.NonValidated)
            {
                answer.AppendLine().Append(Invariant($"{name}: {values}"));
            }

            return answer.ToString();
        }
        catch (HttpRequestException failure)
        {
            throw new BenchException($"does not answer {probe.Path}: {failure.Message}");
        }
    }

    public ValueTask DisposeAsync() => _process.DisposeAsync();

    private static string[] ApplicationAddress(ServerPort port, int number)
    {
        // Kestrel always listens on something; where the scenario is not about that, on a port of the system's choice.
        string[] aside = ["--urls", "http://127.0.0.1:0"];
        return port switch
        {
            ServerPort.Http => ["--urls", $"http://127.0.0.1:{number}"],
            ServerPort.Https => [.. aside, "--https-port", $"{number}"],
            ServerPort.H2c => [.. aside, "--h2c-port", $"{number}"],
            ServerPort.Raw => [.. aside, "--raw-port", $"{number}"],
            ServerPort.NativeEcho => [.. aside, "--echo-port", $"{number}"],
            ServerPort.NativeHttp => [.. aside, "--native-http-port", $"{number}"],
            _ => [.. aside, "--udp-echo-port", $"{number}"],
        };
    }

    private static string EpollServerSwitch(ServerPort port) => port switch
    {
        ServerPort.Http => "--http",
        ServerPort.NativeHttp => "--native-http",
        ServerPort.NativeEcho => "--echo",
        ServerPort.UdpEcho => "--udp-echo",
        _ => throw new ArgumentOutOfRangeException(nameof(port), port, "The server in C does not speak it."),
    };

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
