using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Evio.Bench;

/// <summary>How one scenario loads a server: which tool, with which arguments, and how its output is read.</summary>
internal abstract record Load
{
    public abstract Tool Tool { get; }

    public abstract IEnumerable<string> Arguments(int port, int seconds, string scratch);

    /// <exception cref="LoadOutputException">The tool printed something else than the result of a run.</exception>
    public abstract LoadResult Parse(string output, int seconds, string scratch);

    /// <summary>The same requests, so many in each second, however fast they are answered.</summary>
    /// <exception cref="NotSupportedException">The tool cannot.</exception>
    public virtual Load AtRate(double requestsPerSecond) => throw new NotSupportedException($"{Tool.Command} has no fixed rate.");
}

/// <summary>wrk: HTTP/1.1 keep-alive, each connection with one request under way, or with those that a script makes.</summary>
internal sealed partial record WrkLoad(int Connections, string Path, string Scheme = "http") : Load
{
    public override Tool Tool => Tool.Wrk;

    /// <summary>Header fields of each request, such as <c>Accept-Encoding: gzip</c>.</summary>
    public IReadOnlyList<string> Headers { get; init; } = [];

    public WrkScript? Script { get; init; }

    public override IEnumerable<string> Arguments(int port, int seconds, string scratch) =>
    [
        "-t", "1", "-c", $"{Connections}", "-d", $"{seconds}s", "--latency",
        .. Headers.SelectMany(static header => (string[])["-H", header]),
        .. Script is null ? (string[])[] : ["-s", Script.Write(scratch)],
        $"{Scheme}://127.0.0.1:{port}{Path}",
    ];

    public override LoadResult Parse(string output, int seconds, string scratch) => Parse(output);

    public static LoadResult Parse(string output)
    {
        var total = Total().Match(output);
        var (p50, p99) = (Percentile(50).Match(output), Percentile(99).Match(output));
        if (!total.Success || !p50.Success || !p99.Success)
        {
            throw new LoadOutputException("wrk did not report a run.", output);
        }

        var failures = new List<string>();
        long failed = 0;
        if (SocketErrors().Match(output) is { Success: true } socketErrors)
        {
            failures.Add(socketErrors.Value.Trim());
            failed += socketErrors.Groups[1].Captures.Sum(static count => long.Parse(count.Value, CultureInfo.InvariantCulture));
        }

        if (Refused().Match(output) is { Success: true } refused)
        {
            failures.Add(refused.Value.Trim());
            failed += long.Parse(refused.Groups[1].Value, CultureInfo.InvariantCulture);
        }

        return new LoadResult(
            Microseconds(total.Groups[2].Value) / 1e6,
            long.Parse(total.Groups[1].Value, CultureInfo.InvariantCulture),
            failed,
            failures.Count == 0 ? null : string.Join("; ", failures),
            Microseconds(p50.Groups[1].Value),
            Microseconds(p99.Groups[1].Value));
    }

    /// <summary>A time as wrk and h2load print it: 643.00us, 1.25ms, 10.10s, 1.50m.</summary>
    public static double Microseconds(string time)
    {
        var match = Time().Match(time);
        return match.Success
            ? double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture) * match.Groups[2].Value switch
            {
                "us" => 1,
                "ms" => 1e3,
                "s" => 1e6,
                "m" => 60e6,
                _ => 3600e6,
            }
            : throw new FormatException($"'{time}' is no time.");
    }

    private static Regex Percentile(int percent) => percent == 50 ? Median() : NinetyNinth();

    [GeneratedRegex(@"^\s*(\d+) requests in ([0-9.]+[a-z]+),", RegexOptions.Multiline)]
    private static partial Regex Total();

    [GeneratedRegex(@"^\s*50%\s+([0-9.]+[a-z]+)", RegexOptions.Multiline)]
    private static partial Regex Median();

    [GeneratedRegex(@"^\s*99%\s+([0-9.]+[a-z]+)", RegexOptions.Multiline)]
    private static partial Regex NinetyNinth();

    [GeneratedRegex(@"Socket errors:(?:,? [a-z]+ (\d+))+")]
    private static partial Regex SocketErrors();

    [GeneratedRegex(@"Non-2xx or 3xx responses: (\d+)")]
    private static partial Regex Refused();

    [GeneratedRegex(@"^([0-9.]+)(us|ms|s|m|h)$")]
    private static partial Regex Time();
}

/// <summary>What wrk sends instead of its GET, in Lua.</summary>
internal sealed record WrkScript(string Name, string Text)
{
    /// <summary>A POST.</summary>
    public static WrkScript PostJson(string json) => new(
        "post",
        $"""
        wrk.method = "POST"
        wrk.headers["Content-Type"] = "application/json"
        wrk.body = [==[{json}]==]
        """);

    /// <summary>So many requests at once; the next ones when all are answered.</summary>
    public static WrkScript Pipeline(int depth) => new(
        $"pipeline-{depth}",
        $"""
        init = function(args)
          batch = string.rep(wrk.format(), {depth})
        end
        request = function()
          return batch
        end
        """);

    /// <summary>Writes the file that wrk reads.</summary>
    /// <returns>Its path.</returns>
    public string Write(string scratch)
    {
        var path = Path.Combine(scratch, Name + ".lua");
        File.WriteAllText(path, Text);
        return path;
    }
}

/// <summary>h2load: HTTP/2 with prior knowledge, each connection with so many streams under way; or HTTP/1.1 over TLS at a fixed rate, which wrk does not have.</summary>
internal sealed partial record H2Load(int Connections, int Streams, string Path) : Load
{
    public override Tool Tool => Tool.H2Load;

    /// <summary>HTTP/1.1 over TLS instead of HTTP/2 without.</summary>
    public bool IsHttp1OverTls { get; init; }

    /// <summary>The requests of each second; as many as the server answers without it. Latencies count from when a request is sent, not from when it was due.</summary>
    public double? Rate { get; init; }

    /// <summary>With it, each request is a call of gRPC.</summary>
    public GrpcCall? Call { get; init; }

    public override IEnumerable<string> Arguments(int port, int seconds, string scratch) =>
    [
        "-t", "1", "-c", $"{Connections}", "-m", $"{Streams}", "-D", $"{seconds}", "--log-file", LogFile(scratch),
        .. Call is null ? (string[])[] : ["-d", Call.Write(scratch), "-H", $"content-type: {GrpcCall.ContentType}", "-H", "te: trailers"],
        .. Rate is { } rate ? (string[])["--rps", string.Create(CultureInfo.InvariantCulture, $"{rate / Connections:F3}")] : [],
        .. IsHttp1OverTls ? (string[])["--h1"] : [],
        $"{(IsHttp1OverTls ? "https" : "http")}://127.0.0.1:{port}{Path}",
    ];

    public override Load AtRate(double requestsPerSecond) => this with { Rate = requestsPerSecond };

    public override LoadResult Parse(string output, int seconds, string scratch)
    {
        var log = LogFile(scratch);
        try
        {
            var result = Parse(output, seconds, File.ReadLines(log));
            return Call is null ? result : CheckData(output, result, Call);
        }
        finally
        {
            File.Delete(log);
        }
    }

    /// <param name="log">A line per request: when it began, its status, how many µs it took.</param>
    public static LoadResult Parse(string output, int seconds, IEnumerable<string> log)
    {
        var counts = Counts().Match(output);
        double[] latencies = [.. log.Select(static line => double.Parse(line.AsSpan(line.LastIndexOf('\t') + 1), CultureInfo.InvariantCulture))];
        if (!counts.Success || latencies.Length == 0)
        {
            throw new LoadOutputException("h2load did not report a run.", output);
        }

        Array.Sort(latencies);
        var (done, succeeded, failed) = (Count(1), Count(2), Count(3) + Count(4) + Count(5));
        failed = Math.Max(failed, done - succeeded);

        // With -D, h2load counts what was done within that time.
        return new LoadResult(
            seconds, succeeded, failed, failed == 0 ? null : counts.Value, Statistics.Percentile(latencies, 50), Statistics.Percentile(latencies, 99));

        long Count(int group) => long.Parse(counts.Groups[group].Value, CultureInfo.InvariantCulture);
    }

    /// <summary>
    /// Counts failed calls by their missing messages. A call that fails has status 200 as well, and h2load does not read
    /// gRPC's status in the trailers. Calls that were under way at the end may have a part of their messages,
    /// so as many as those are not noticed.
    /// </summary>
    public LoadResult CheckData(string output, LoadResult result, GrpcCall call)
    {
        if (Data().Match(output) is not { Success: true } data)
        {
            throw new LoadOutputException("h2load did not report its traffic.", output);
        }

        var wrong = Math.Abs(result.Requests - (long.Parse(data.Groups[1].Value, CultureInfo.InvariantCulture) / call.AnswerBytes));
        return result.Failed > 0 || wrong <= Connections * Streams
            ? result
            : result with
            {
                Failed = wrong,
                Failure = $"{data.Groups[1].Value} bytes of messages in {result.Requests} calls, which have {call.AnswerBytes} each",
            };
    }

    private static string LogFile(string scratch) => System.IO.Path.Combine(scratch, "h2load.log");

    [GeneratedRegex(@"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")]
    private static partial Regex Counts();

    [GeneratedRegex(@"^traffic: .* \((\d+)\) data", RegexOptions.Multiline)]
    private static partial Regex Data();
}

/// <summary>A call of talk.proto in eng/bench/ecosystem.</summary>
/// <param name="Text">The text of the request's message, shorter than 128 bytes.</param>
/// <param name="Answers">How often the message comes back.</param>
internal sealed record GrpcCall(string Text, int Answers)
{
    public const string ContentType = "application/grpc";

    public int AnswerBytes => Answers * Frame().Length;

    /// <summary>
    /// The message as gRPC sends it: not compressed, the length in four bytes, and field 1 of protobuf with a length and that many bytes.
    /// </summary>
    public byte[] Frame()
    {
        var text = Encoding.UTF8.GetBytes(Text);
        return [0, 0, 0, 0, (byte)(text.Length + 2), 0x0A, (byte)text.Length, .. text];
    }

    /// <summary>Writes the file that h2load sends.</summary>
    /// <returns>Its path.</returns>
    public string Write(string scratch)
    {
        var path = Path.Combine(scratch, "grpc-message");
        File.WriteAllBytes(path, Frame());
        return path;
    }
}

/// <summary>load.c, for what wrk and h2load cannot do.</summary>
internal sealed record OwnLoad(string Mode, params IReadOnlyList<string> Options) : Load
{
    public override Tool Tool => Tool.Compiler;

    public override IEnumerable<string> Arguments(int port, int seconds, string scratch) =>
        [Mode, "--port", $"{port}", "--seconds", $"{seconds}", .. Options];

    public OwnLoad With(params string[] options) => this with { Options = [.. Options, .. options] };

    public override Load AtRate(double requestsPerSecond) => With("--rate", string.Create(CultureInfo.InvariantCulture, $"{requestsPerSecond}"));

    public override LoadResult Parse(string output, int seconds, string scratch) => Parse(output);

    /// <param name="output">The result as JSON in the last line.</param>
    public static LoadResult Parse(string output)
    {
        try
        {
            using var json = JsonDocument.Parse(output.TrimEnd().Split('\n')[^1]);
            var run = json.RootElement;
            return new LoadResult(
                run.GetProperty("seconds").GetDouble(),
                run.GetProperty("requests").GetInt64(),
                run.GetProperty("failed").GetInt64(),
                run.GetProperty("failure").GetString(),
                run.GetProperty("p50_us").GetDouble(),
                run.GetProperty("p99_us").GetDouble());
        }
        catch (Exception malformed) when (malformed is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new LoadOutputException("The load generator did not report a run.", output);
        }
    }
}
