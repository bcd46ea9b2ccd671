using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Net.WebSockets;

namespace Evio.Soak;

/// <summary>Clients that misbehave. What they got by then is checked all the same, and nobody else may notice.</summary>
internal static class FaultVisits
{
    /// <summary>Goes amid a request's head or body, with FIN or RST.</summary>
    public static async Task AbortRequestAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http);
        var request = visit.Random.Next(2) == 0
            ? HttpVisits.Get("/plaintext")
            : HttpVisits.Post(visit.Random.Next(2) == 0 ? "/upload" : "/echo", visit.Bytes(visit.Size(300_000)), visit.Random);

        // The echo would fill the client's buffers, and then nothing more could be sent.
        var part = Math.Min(visit.Random.Next(1, request.Length), 50_000);
        await wire.SendInPiecesAsync(request.AsMemory(0, part), visit.Random, visit.Cancellation);
        Leave(visit, wire);
    }

    public static async Task ResetAnswerAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Http);
        await wire.SendAsync(HttpVisits.Get($"/large?bytes={visit.Random.Next(1, 20_000_000)}"), visit.Cancellation);
        var (_, length) = await wire.ReadHeadAsync(visit.Cancellation);
        var buffer = new byte[16 * 1024];
        var got = 0;
        for (var left = visit.Random.Next(20); left > 0 && got < length; left--)
        {
            got += await wire.ReadAsync(buffer, visit.Cancellation);
        }

        Leave(visit, wire);
    }

    /// <summary>Asks for much, and looks at nothing of it for a while.</summary>
    public static async Task NeverReadAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Random.Next(2) == 0 ? visit.Server.Http : visit.Server.NativeHttp, receiveBuffer: 4096);
        var requests = Enumerable.Repeat(HttpVisits.Get("/plaintext"), 1000).SelectMany(static request => request).ToArray();
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(visit.Cancellation);
        patience.CancelAfter(visit.Random.Next(50, 1000));
        try
        {
            // Sooner or later the server takes no more.
            for (var left = 100; left > 0; left--)
            {
                await wire.SendAsync(requests, patience.Token);
            }
        }
        catch (OperationCanceledException) when (!visit.Cancellation.IsCancellationRequested)
        {
            // As it was to be.
        }

        Leave(visit, wire);
    }

    /// <summary>Gives up requests of which others on the same client go on.</summary>
    public static async Task CancelAsync(Visit visit)
    {
        var (port, scheme, version) = visit.Random.Next(3) switch
        {
            0 => (visit.Server.Http, "http", HttpVersion.Version11),
            1 => (visit.Server.H2c, "http", HttpVersion.Version20),
            _ => (visit.Server.Https, "https", HttpVersion.Version20),
        };
        using var client = HttpVisits.CreateClient(port, scheme, version);
        for (var left = visit.Random.Next(1, 5); left > 0; left--)
        {
            using var patience = CancellationTokenSource.CreateLinkedTokenSource(visit.Cancellation);
            var kind = visit.Random.Next(3);
            var began = Stopwatch.GetTimestamp();
            var givenUp = kind switch
            {
                0 => ReadAsync(client, "/wait?ms=60000", patience.Token),
                1 => ReadAsync(client, "/large?bytes=1000000000", patience.Token),
                _ => PostForeverAsync(client, patience.Token),
            };
            var (path, body) = HttpVisits.Simple(visit.Random);
            HttpVisits.Check(visit, new Reply(200, await client.GetByteArrayAsync(path, visit.Cancellation)), body);
            await Task.Delay(visit.Random.Next(30), visit.Cancellation);
            await patience.CancelAsync();
            visit.Tally.Fault();
            try
            {
                var answer = await givenUp;
                throw new SoakException(
                    $"{scheme} {version}: an answer of {answer} bytes to {(kind == 0 ? "/wait" : kind == 1 ? "/large" : "/upload")}, a request that has no end, "
                    + $"{Stopwatch.GetElapsedTime(began).TotalSeconds:F1} s after its beginning");
            }
            catch (Exception cancelled) when (cancelled is OperationCanceledException && !visit.Cancellation.IsCancellationRequested)
            {
                // As it was to be.
            }

            HttpVisits.Check(visit, new Reply(200, await client.GetByteArrayAsync(path, visit.Cancellation)), body);
        }
    }

    /// <summary>Bytes that are no HTTP, TLS, HTTP/2 or Redis. The server answers what it likes, and ends the connection.</summary>
    public static async Task GarbageAsync(Visit visit)
    {
        int[] ports = [visit.Server.Http, visit.Server.Https, visit.Server.H2c];
        using var wire = await visit.ConnectAsync(ports[visit.Random.Next(ports.Length)]);
        var garbage = visit.Bytes(visit.Random.Next(100, 20_000));

        // No request's head ends before it.
        garbage[0] = 0;
        visit.Tally.Fault();
        try
        {
            await wire.SendInPiecesAsync(garbage, visit.Random, visit.Cancellation);
            wire.ShutdownSend();
            var buffer = new byte[16 * 1024];
            while (await wire.ReadAsync(buffer, visit.Cancellation) > 0)
            {
            }
        }
        catch (SocketException)
        {
            // It may end in a reset: part of it is still unread when the server has seen enough.
        }
    }

    /// <summary>Many connections at once, of which some ask something, and which all go at once.</summary>
    public static async Task BurstAsync(Visit visit)
    {
        int[] ports = [visit.Server.Http, visit.Server.Https, visit.Server.Raw, visit.Server.Echo];
        var port = ports[visit.Random.Next(ports.Length)];
        var wires = await Task.WhenAll(Enumerable.Range(0, visit.Random.Next(10, 100)).Select(_ => visit.ConnectAsync(port)));
        if (port == visit.Server.Http)
        {
            var asking = wires.Where(_ => visit.Random.Next(2) == 0).ToArray();
            foreach (var wire in asking)
            {
                await wire.SendAsync(HttpVisits.Get("/json"), visit.Cancellation);
            }

            foreach (var wire in asking.Where(_ => visit.Random.Next(2) == 0))
            {
                HttpVisits.Check(visit, await wire.ReadReplyAsync(visit.Cancellation), """{"message":"Hello, World!"}"""u8.ToArray());
            }
        }

        foreach (var wire in wires)
        {
            Leave(visit, wire);
        }
    }

    public static async Task BreakWebSocketAsync(Visit visit)
    {
        using var socket = await HttpVisits.OpenWebSocketAsync(visit);
        await socket.SendAsync(visit.Bytes(visit.Size(100_000)).AsMemory(), WebSocketMessageType.Binary, visit.Random.Next(2) == 0, visit.Cancellation);
        socket.Abort();
        visit.Tally.Fault();
    }

    public static async Task ResetEchoAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Random.Next(2) == 0 ? visit.Server.Raw : visit.Server.Echo);
        var sent = visit.Bytes(visit.Size(50_000));
        await wire.SendInPiecesAsync(sent, visit.Random, visit.Cancellation);
        var part = visit.Random.Next(sent.Length);
        await wire.ExpectAsync(sent.AsMemory(0, part), visit.Cancellation);
        visit.Tally.Verified(part);
        Leave(visit, wire);
    }

    private static void Leave(Visit visit, Wire wire)
    {
        visit.Tally.Fault();
        if (visit.Random.Next(2) == 0)
        {
            wire.Reset();
        }
        else
        {
            wire.Dispose();
        }
    }

    private static async Task<long> ReadAsync(HttpClient client, string path, CancellationToken cancellation)
    {
        await using var answer = await client.GetStreamAsync(path, cancellation);
        var buffer = new byte[64 * 1024];
        var length = 0L;
        while (await answer.ReadAsync(buffer, cancellation) is var count and > 0)
        {
            length += count;

            // Reads that need not wait would keep a thread of the pool from everybody else, from who gives this up as well.
            await Task.Yield();
        }

        return length;
    }

    private static async Task<long> PostForeverAsync(HttpClient client, CancellationToken cancellation)
    {
        using var content = new StreamContent(new EndlessStream());
        using var response = await client.PostAsync("/upload", content, cancellation);
        return (await response.Content.ReadAsByteArrayAsync(cancellation)).Length;
    }

    private sealed class EndlessStream : Stream
    {
        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }

        public override void Flush()
        {
        }

        public override int Read(byte[] buffer, int offset, int count) => Math.Min(count, 1000);

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            await Task.Delay(1, cancellationToken);
            return Math.Min(buffer.Length, 1000);
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
