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
    /// <summary>Part of a run without options.</summary>
    public bool IsQuick { get; init; }

    /// <summary>An HTTP request that all variants must answer with the same bytes, except for the date.</summary>
    public string? Probe { get; init; }

    /// <summary>With this, the load is no closed loop: requests come at this fraction of the rate that the baseline manages.</summary>
    public double? RateOfBaseline { get; init; }

    /// <summary>With this, so many connections are opened, asked once and left alone.</summary>
    public int? IdleConnections { get; init; }

    public static IReadOnlyList<Scenario> All { get; } =
    [
        .. from path in (string[])["plaintext", "json"]
           from connections in (int[])[1, 64, 512]
           select Keep(path, connections),
    ];

    private static Scenario Keep(string path, int connections) =>
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
