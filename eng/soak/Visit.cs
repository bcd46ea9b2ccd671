namespace Evio.Soak;

/// <summary>One thing that a client does: it comes, gets and checks what it wants, and goes, in order or not.</summary>
internal sealed record Visit(SampleServer Server, Random Random, CancellationToken Cancellation)
{
    /// <summary>Far longer than anything takes on a slow machine: what has not ended by then hangs.</summary>
    public static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);

    /// <summary>What hides in a visit's kind and seed is the same in every run: the order and the sizes of what the client does.</summary>
    public static IReadOnlyList<(string Name, Func<Visit, Task> DoAsync)> Kinds { get; } =
    [
        ("keep-alive", HttpVisits.KeepAliveAsync),
        ("pipelined", HttpVisits.PipelinedAsync),
        ("streamed", HttpVisits.StreamedAsync),
        ("upload", HttpVisits.UploadAsync),
        ("echoed body", HttpVisits.EchoAsync),
        ("slow reader", HttpVisits.SlowReaderAsync),
        ("half-close", HttpVisits.HalfCloseAsync),
        ("http/2", HttpVisits.Http2Async),
        ("https", HttpVisits.HttpsAsync),
        ("https, http/2", HttpVisits.HttpsHttp2Async),
        ("web socket", HttpVisits.WebSocketAsync),
        ("raw echo", StreamVisits.RawEchoAsync),
        ("native echo", StreamVisits.NativeEchoAsync),
        ("native http", StreamVisits.NativeHttpAsync),
        ("redis", StreamVisits.RedisAsync),
        ("udp", StreamVisits.DatagramsAsync),
        ("abort of a request", FaultVisits.AbortRequestAsync),
        ("reset amid an answer", FaultVisits.ResetAnswerAsync),
        ("never reads", FaultVisits.NeverReadAsync),
        ("cancelled", FaultVisits.CancelAsync),
        ("garbage", FaultVisits.GarbageAsync),
        ("burst", FaultVisits.BurstAsync),
        ("broken web socket", FaultVisits.BreakWebSocketAsync),
        ("reset of an echo", FaultVisits.ResetEchoAsync),
    ];

    public Tally Tally => Server.Tally;

    public byte[] Bytes(int count)
    {
        var bytes = new byte[count];
        Random.NextBytes(bytes);
        return bytes;
    }

    /// <summary>Mostly small, sometimes beyond every buffer on the way.</summary>
    public int Size(int most)
    {
        var bound = Random.Next(10) switch { < 4 => 100, < 7 => 5000, < 9 => 100_000, _ => most };
        return Random.Next(1, Math.Min(bound, most) + 1);
    }

    public Task<Wire> ConnectAsync(int port, int receiveBuffer = 0) => Wire.ConnectAsync(port, Cancellation, receiveBuffer);
}
