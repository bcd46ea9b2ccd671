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

/// <summary>The application that answers in a scenario.</summary>
internal enum Application
{
    /// <summary>samples/WebApp.</summary>
    Sample,

    /// <summary>eng/bench/ecosystem, with what applications use besides ASP.NET Core.</summary>
    Ecosystem,
}

/// <summary>An HTTP request that all variants of a scenario must answer alike.</summary>
/// <param name="Json">With it, the request is a POST.</param>
/// <param name="Call">With it, the request is a call of gRPC.</param>
internal sealed record Probe(string Path, string? Json = null, string? AcceptEncoding = null, GrpcCall? Call = null);

internal sealed record Scenario(string Name, string Title, ServerPort Port, IReadOnlyList<Variant> Variants, Load Load)
{
    /// <summary>What a server has open apart from its connections: libraries, loops, listeners.</summary>
    private const int FilesBesideConnections = 500;

    /// <summary>What the sample's /object answers, and takes.</summary>
    private const string OrderJson =
        """
        {"id":1,"customer":"Ada","products":[{"id":1,"name":"Product number 1","price":1.99},{"id":2,"name":"Product number 2","price":2.99}]}
        """;

    /// <summary>Part of a run without options.</summary>
    public bool IsQuick { get; init; }

    /// <summary>What all variants must answer alike, except for the date.</summary>
    public Probe? Probe { get; init; }

    public Application Application { get; init; }

    /// <summary>What the application has to be started with.</summary>
    public IReadOnlyList<string> Switches { get; init; } = [];

    /// <summary>Whether handlers call another server, for which the server in C is started.</summary>
    public bool CallsOut { get; init; }

    /// <summary>Whether handlers read from PostgreSQL, which is started and filled for it.</summary>
    public bool UsesDatabase { get; init; }

    /// <summary>With this, the load is no closed loop: requests come at this fraction of the rate that the baseline manages.</summary>
    public double? RateOfBaseline { get; init; }

    /// <summary>How many times as long as others its servers need to get warm: more code, more compilation, which has to share the core with the load.</summary>
    public int WarmUpFactor { get; init; } = 1;

    /// <summary>With this, so many connections are opened, asked once and left alone.</summary>
    public int? IdleConnections { get; init; }

    /// <summary>Of handlers that return a value and leave the rest to the framework, as those of most applications.</summary>
    private static IReadOnlyList<Scenario> Ordinary { get; } =
    [
        Wrk("string-64", "GET of a string that the handler returns", "/string") with { IsQuick = true },
        Wrk("object-64", "GET of an object that the handler returns, as JSON", "/object") with { IsQuick = true },
        Wrk("post-object-64", "POST of an object as JSON, which the handler returns", "/object", json: OrderJson),
        Wrk("objects-streamed-64", "GET of 20 objects, some of which the handler awaits", "/stream-objects"),
        Wrk("file-200k-32", "GET of a file of 200 KiB that the handler names", "/file", connections: 32),
        Wrk("static-8k-64", "GET of a static file of 8 KiB", "/static/8k.txt"),
        Wrk("static-200k-32", "GET of a static file of 200 KiB", "/static/200k.txt", connections: 32),
        Wrk("compressed-64", "GET of 100 objects, compressed with gzip", "/compressed", acceptEncoding: "gzip"),
        Wrk("mvc-64", "GET of an object from an action of MVC", "/mvc") with { Switches = ["--mvc", "true"] },
        Wrk("yield-64", "GET of a string, after Task.Yield", "/yield"),
        Wrk("delay-64", "GET of a string, after Task.Delay of 1 ms", "/delay?ms=1"),
        Wrk("call-out-64", "GET that asks another server over HttpClient's own sockets", "/call-out") with { CallsOut = true },
        Wrk("call-out-evio-64", "GET that asks another server over the transport's connections", "/call-out-evio") with { CallsOut = true },
        new("string-ten-per-connection", "GET of a string, the tenth request with Connection: close, 64 at a time", ServerPort.Http, Variant.Kestrel,
            new OwnLoad("http", "--path", "/string", "--requests", "10"))
        {
            Probe = new("/string"),
        },
        new("string-pipelined", "GET of a string, 16 requests in each packet, 64 connections", ServerPort.Http, Variant.Kestrel,
            new OwnLoad("http", "--path", "/string", "--pipeline", "16"))
        {
            Probe = new("/string"),
        },
        Wrk("string-https", "GET of a string over TLS", "/string", port: ServerPort.Https),
        Wrk("object-https", "GET of an object over TLS", "/object", port: ServerPort.Https),
        Wrk("file-200k-https", "GET of a file of 200 KiB over TLS", "/file", connections: 32, port: ServerPort.Https),
        Wrk("string-https-pipelined", "GET of a string over TLS, 16 requests at once", "/string", port: ServerPort.Https, pipeline: 16),
        AtHalfRate("object-rate", "GET of an object", "/object"),
        AtHalfRate("object-https-rate", "GET of an object over TLS", "/object", port: ServerPort.Https),
        AtHalfRate("mvc-rate", "GET of an object from an action of MVC", "/mvc") with { Switches = ["--mvc", "true"] },
        AtHalfRate("file-200k-rate", "GET of a file of 200 KiB that the handler names", "/file", connections: 32),
        AtHalfRate("yield-rate", "GET of a string, after Task.Yield", "/yield"),
        AtHalfRate("delay-rate", "GET of a string, after Task.Delay of 1 ms", "/delay?ms=1"),
        AtHalfRate("call-out-rate", "GET that asks another server over HttpClient's own sockets", "/call-out") with { CallsOut = true },
    ];

    private static Scenario GrpcUnary { get; } = Grpc("grpc-unary", "gRPC, unary calls that get their message back", "/bench.Talk/Say", answers: 1);

    /// <summary>Of what applications use besides ASP.NET Core.</summary>
    private static IReadOnlyList<Scenario> Ecosystem { get; } =
    [
        GrpcUnary,
        Grpc("grpc-stream", "gRPC, calls that get their message back 20 times", "/bench.Talk/Repeat", answers: 20),
        // Without a probe: a hub answers in its own protocol, and the load compares every answer with what it must be.
        new("signalr-echo-64", "SignalR invocations with a string of 64 bytes, JSON over WebSocket, 64 connections", ServerPort.Http,
            Variant.Kestrel, new OwnLoad("signalr", "--path", "/hub")),
        Wrk("yarp-64", "GET through a reverse proxy, YARP over HttpClient's own sockets", "/proxied") with { CallsOut = true, WarmUpFactor = 3 },
        Wrk("yarp-evio-64", "GET through a reverse proxy, YARP over the transport's connections", "/proxied-evio") with { CallsOut = true, WarmUpFactor = 3 },
        Wrk("pg-row-64", "GET of a row of PostgreSQL as JSON", "/row", probe: "/row?id=42") with { UsesDatabase = true },
        Wrk("pg-rows-20-64", "GET of 20 rows of PostgreSQL, a query for each, as JSON", "/rows", probe: "/rows?id=42") with
        {
            UsesDatabase = true,
        },
        Wrk("pg-fortunes-64", "GET of a page with 12 rows of PostgreSQL", "/fortunes") with { UsesDatabase = true },
        Wrk("cached-row-64", "GET of a row of an IMemoryCache as JSON", "/cached-row", probe: "/cached-row?id=42"),
        AtHalfRate("grpc-unary-rate", GrpcUnary),
        AtHalfRate("yarp-rate", "GET through a reverse proxy, YARP over HttpClient's own sockets", "/proxied") with { CallsOut = true, WarmUpFactor = 3 },
        AtHalfRate("pg-row-rate", "GET of a row of PostgreSQL as JSON", "/row", probe: "/row?id=42") with { UsesDatabase = true },
    ];

    private static Scenario Http2 { get; } = new(
        "http2", "GET /plaintext, HTTP/2 without TLS, 16 connections of 32 streams", ServerPort.H2c, Variant.Kestrel, new H2Load(16, 32, "/plaintext"))
    {
        WarmUpFactor = 3,
    };

    /// <summary>In the order of the report.</summary>
    public static IReadOnlyList<Scenario> All { get; } =
    [
        .. Ordinary,
        .. Ecosystem.Select(static scenario => scenario with { Application = Application.Ecosystem }),
        .. from path in (string[])["plaintext", "json"]
           from connections in (int[])[1, 64, 512]
           select KeepAlive(path, connections),
        new("plaintext-pipelined", "GET /plaintext, 16 requests in each packet, 64 connections", ServerPort.Http, Variant.KestrelAndC,
            new OwnLoad("http", "--path", "/plaintext", "--pipeline", "16"))
        {
            Probe = new("/plaintext"),
        },
        AtHalfRate("plaintext-rate", "GET /plaintext", "/plaintext"),
        new("connection-close", "GET /plaintext with Connection: close, 64 at a time", ServerPort.Http, Variant.KestrelAndC,
            new OwnLoad("http", "--path", "/plaintext", "--requests", "1")),
        new("ten-per-connection", "GET /plaintext, the tenth request with Connection: close, 64 at a time", ServerPort.Http, Variant.KestrelAndC,
            new OwnLoad("http", "--path", "/plaintext", "--requests", "10")),
        new("response-16k", "GET of 16 KiB, 64 connections", ServerPort.Http, Variant.Kestrel, new WrkLoad(64, "/large?bytes=16384")),
        new("response-1m", "GET of 1 MiB, 16 connections", ServerPort.Http, Variant.Kestrel, new WrkLoad(16, "/large?bytes=1048576")),
        new("upload-20m", "POST of 20 MiB that the application only counts, 4 connections", ServerPort.Http, Variant.Kestrel,
            new OwnLoad("http", "--path", "/drain", "--upload", "20971520", "--connections", "4")),
        Http2,
        AtHalfRate("http2-rate", Http2),
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
            Probe = new("/plaintext"),
        },
        new("udp-echo", "datagrams of 64 bytes through the callback API, 64 peers", ServerPort.UdpEcho, Variant.NativeAndC, new OwnLoad("udp")),
    ];

    public IEnumerable<Tool> Tools => [Load.Tool, .. CallsOut ? [Tool.Compiler] : (Tool[])[], .. UsesDatabase ? Database.Tools : []];

    /// <summary>Why it cannot be run here; null when it can.</summary>
    public string? Obstacle
    {
        get
        {
            if (Tools.Select(static tool => tool.Obstacle).FirstOrDefault(static obstacle => obstacle is not null) is { } obstacle)
            {
                return obstacle;
            }

            return IdleConnections is { } count && Machine.MaxOpenFiles() < count + FilesBesideConnections
                ? $"{count} connections need a hard limit of open files (ulimit -Hn) of {count + FilesBesideConnections}"
                : null;
        }
    }

    private static Scenario Wrk(
        string name, string title, string path, int connections = 64, ServerPort port = ServerPort.Http, string? json = null,
        string? acceptEncoding = null, int? pipeline = null, string? probe = null) =>
        new(
            name, $"{title}, keep-alive, {connections} connections", port, Variant.Kestrel,
            new WrkLoad(connections, path, port == ServerPort.Https ? "https" : "http")
            {
                Headers = acceptEncoding is null ? [] : [$"Accept-Encoding: {acceptEncoding}"],
                Script = json is not null ? WrkScript.PostJson(json) : pipeline is { } depth ? WrkScript.Pipeline(depth) : null,
            })
        {
            Probe = new(probe ?? path, json, acceptEncoding),
        };

    private static Scenario AtHalfRate(
        string name, string title, string path, int connections = 64, ServerPort port = ServerPort.Http, string? probe = null) =>
        AtHalfRate(
            name,
            new(
                name, $"{title}, {connections} connections", port, Variant.Kestrel,
                port == ServerPort.Https
                    ? new H2Load(connections, 1, path) { IsHttp1OverTls = true }
                    : new OwnLoad("http", "--path", path, "--connections", $"{connections}"))
            {
                Probe = new(probe ?? path),
            });

    private static Scenario AtHalfRate(string name, Scenario closed) =>
        closed with { Name = name, Title = closed.Title + ", at half the rate that sockets manages", RateOfBaseline = 0.5 };

    private static Scenario Grpc(string name, string title, string path, int answers)
    {
        var call = new GrpcCall("Hello, World!", answers);
        return new(
            name, $"{title}, HTTP/2 without TLS, 16 connections of 32 streams", ServerPort.H2c, Variant.Kestrel,
            new H2Load(16, 32, path) { Call = call })
        {
            Probe = new(path, Call: call),
            WarmUpFactor = 3,
        };
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
            Probe = new($"/{path}"),
        };
}
