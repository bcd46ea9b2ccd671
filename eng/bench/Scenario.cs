namespace Evio.Bench;

/// <summary>Which of a server's ports a scenario speaks to.</summary>
internal enum ServerPort
{
    Http,
    Https,
    H2c,
    Raw,
    NativeEcho,
    NativeHttp,
    UdpEcho,
}

internal sealed record Scenario(string Name, string Title, ServerPort Port, IReadOnlyList<Variant> Variants, Load Load)
{
    /// <summary>What a server has open apart from its connections: libraries, loops, listeners.</summary>
    private const int FilesBesideConnections = 500;

    /// <summary>Part of a run without options.</summary>
    public bool IsQuick { get; init; }

    /// <summary>An HTTP request that all variants must answer with the same bytes, except for the date.</summary>
    public string? Probe { get; init; }

    /// <summary>With this, the load is no closed loop: requests come at this fraction of the rate that the baseline manages.</summary>
    public double? RateOfBaseline { get; init; }

    /// <summary>How many times as long as others its servers need to get warm: more code, more compilation, which has to share the core with the load.</summary>
    public int WarmUpFactor { get; init; } = 1;

    /// <summary>With this, so many connections are opened, asked once and left alone.</summary>
    public int? IdleConnections { get; init; }

    public static IReadOnlyList<Scenario> All { get; } =
    [
        .. from path in (string[])["plaintext", "json"]
           from connections in (int[])[1, 64, 512]
           select KeepAlive(path, connections),
        new("plaintext-pipelined", "GET /plaintext, 16 requests in each packet, 64 connections", ServerPort.Http, Variant.KestrelAndC,
            new OwnLoad("http", "--path", "/plaintext", "--pipeline", "16"))
        {
            IsQuick = true,
            Probe = "/plaintext",
        },
        new("plaintext-rate", "GET /plaintext, 64 connections, at half the rate that sockets manages", ServerPort.Http, Variant.Kestrel,
            new OwnLoad("http", "--path", "/plaintext"))
        {
            Probe = "/plaintext",
            RateOfBaseline = 0.5,
        },
        new("connection-close", "GET /plaintext with Connection: close, 64 at a time", ServerPort.Http, Variant.KestrelAndC,
            new OwnLoad("http", "--path", "/plaintext", "--requests", "1")),
        new("ten-per-connection", "GET /plaintext, the tenth request with Connection: close, 64 at a time", ServerPort.Http, Variant.KestrelAndC,
            new OwnLoad("http", "--path", "/plaintext", "--requests", "10")),
        new("response-16k", "GET of 16 KiB, 64 connections", ServerPort.Http, Variant.Kestrel, new WrkLoad(64, "/large?bytes=16384")),
        new("response-1m", "GET of 1 MiB, 16 connections", ServerPort.Http, Variant.Kestrel, new WrkLoad(16, "/large?bytes=1048576")),
        new("upload-20m", "POST of 20 MiB that the application only counts, 4 connections", ServerPort.Http, Variant.Kestrel,
            new OwnLoad("http", "--path", "/drain", "--upload", "20971520", "--connections", "4")),
        new("http2", "GET /plaintext, HTTP/2 without TLS, 16 connections of 32 streams", ServerPort.H2c, Variant.Kestrel, new H2Load(16, 32, "/plaintext"))
        {
            WarmUpFactor = 3,
        },
        new("https", "GET /plaintext, HTTP/1.1 over TLS, keep-alive, 64 connections", ServerPort.Https, Variant.Kestrel,
            new WrkLoad(64, "/plaintext", "https")),
        new("websocket-echo", "WebSocket messages of 64 bytes, 64 connections", ServerPort.Http, Variant.Kestrel, new OwnLoad("ws", "--path", "/ws")),
        new("raw-echo", "64 bytes through a ConnectionHandler, 64 connections", ServerPort.Raw, Variant.Kestrel, new OwnLoad("echo")),
        new("idle-10k", "10,000 connections that were asked once and then left alone", ServerPort.Http, Variant.Kestrel,
            new OwnLoad("http", "--path", "/plaintext"))
        {
            IdleConnections = 10_000,
        },
        new("native-echo-64", "64 bytes through the callback API, 64 connections", ServerPort.NativeEcho, Variant.NativeAndC, new OwnLoad("echo")),
        new("native-echo-16k", "16 KiB through the callback API, 64 connections", ServerPort.NativeEcho, Variant.NativeAndC,
            new OwnLoad("echo", "--size", "16384")),
        new("native-http-pipelined", "HTTP on the callback API, 16 requests in each packet, 64 connections", ServerPort.NativeHttp, Variant.NativeAndC,
            new OwnLoad("http", "--path", "/plaintext", "--pipeline", "16"))
        {
            Probe = "/plaintext",
        },
        new("udp-echo", "datagrams of 64 bytes through the callback API, 64 peers", ServerPort.UdpEcho, Variant.NativeAndC, new OwnLoad("udp")),
    ];

    /// <summary>Why it cannot be run here; null when it can.</summary>
    public string? Obstacle
    {
        get
        {
            if (!Load.Tool.IsInstalled)
            {
                return $"{Load.Tool.Command} is not installed (package {Load.Tool.Package})";
            }

            return IdleConnections is { } count && Machine.MaxOpenFiles() < count + FilesBesideConnections
                ? $"{count} connections need a hard limit of open files (ulimit -Hn) of {count + FilesBesideConnections}"
                : null;
        }
    }

    private static Scenario KeepAlive(string path, int connections) =>
        new(
            $"{path}-{connections}",
            $"GET /{path}, keep-alive, {connections} connection{(connections == 1 ? "" : "s")}",
            ServerPort.Http,
            path == "plaintext" && connections == 64 ? Variant.KestrelAndC : Variant.Kestrel,
            new WrkLoad(connections, $"/{path}"))
        {
            IsQuick = path == "plaintext" && connections == 64,
            Probe = $"/{path}",
        };
}
