using System.Globalization;
using System.Net.Sockets;
using System.Text;
using CsCheck;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>
/// Random pipelines of requests, cut into random pieces, to an application that cancels its reads at random, from clients of which some leave in the middle.
/// A failure prints the shortest case that was found, and a seed for the environment variable CsCheck_Seed that repeats it.
/// </summary>
public sealed class RandomExchangeTests
{
    private static readonly HostSettings Settings = new() { Kestrel = static options => options.AddServerHeader = false };

    public enum Body
    {
        None,
        Sized,
        Chunked,
    }

    public enum Departure
    {
        None,
        HalfClose,
        Close,
        Reset,
    }

    private static readonly Gen<(Body Body, int Size, int Chunk, int CancelEvery)> Requests = Gen.Select(
        Gen.Enum<Body>(),
        Gen.OneOf(Gen.Int[0, 20], Gen.Int[4000, 4200], Gen.Int[1, 20_000]),
        Gen.OneOf(Gen.Int[1, 20], Gen.Int[1, 5000]),
        Gen.Int[0, 4]);

    /// <summary>Places are parts per million of the whole; around each the input is cut so many times more, byte by byte.</summary>
    private static readonly Gen<(int Place, int Bytes)> Cuts = Gen.Select(Gen.Int[0, 1_000_000], Gen.Frequency((3, Gen.Const(1)), (1, Gen.Int[1, 30])));

    private static readonly Gen<Case> Cases = Gen.Select(
        Requests.Array[1, 6],
        Cuts.Array[0, 12],
        Gen.Frequency((2, Gen.Const(Departure.None)), (1, Gen.Enum<Departure>())),
        Gen.Int[0, 1_000_000],
        static (requests, cuts, departure, place) => new Case(requests, cuts, departure, place));

    [Theory, AllTransports]
    public async Task Every_answer_is_right_however_requests_come_and_clients_go(TransportKind kind)
    {
        var application = new Application();
        await using var host = await TransportHost.StartAsync(kind, application.AnswerAsync, Settings);

        await Cases.SampleAsync(
            async sample =>
            {
                await RunAsync(host, sample);
                await Eventually.HoldsAsync(() => application.Running == 0);
            },
            iter: 200,
            threads: 1,
            print: static sample => sample.ToString());

        Assert.DoesNotContain(host.Logs.OfTransport, static entry => entry.Level > LogLevel.Debug);
    }

    private static async Task RunAsync(TransportHost host, Case sample)
    {
        var (requests, answers) = sample.Write();
        using var client = await host.ConnectAsync();
        if (sample.Departure == Departure.None)
        {
            var receive = client.ReceiveExactlyAsync(answers.Length);
            await SendAsync(client, requests, sample.Cuts);
            TestData.AssertSame(answers, await receive.OrTimeout());
            client.Shutdown(SocketShutdown.Send);
            Assert.Empty(await client.ReceiveToEndAsync().OrTimeout());
            return;
        }

        var sent = (int)((long)requests.Length * sample.Place / 1_000_000);
        var answer = ReceiveWhatComesAsync(client);
        await SendAsync(client, requests.AsMemory(0, sent), sample.Cuts);
        switch (sample.Departure)
        {
            case Departure.HalfClose:
                client.Shutdown(SocketShutdown.Send);
                break;
            case Departure.Close:
                client.Dispose();
                break;
            default:
                client.Reset();
                break;
        }

        // Answers from the first on, the last of them in part if the end cut it, or a refusal of the request that was cut.
        var received = await answer.OrTimeout();
        var common = answers.AsSpan().CommonPrefixLength(received);
        Assert.True(
            common == received.Length || IsRefusal(received, answers),
            $"{received.Length} bytes received, of which the first {common} are right.");
    }

    /// <summary>Whether it is a number of whole answers and then a 400.</summary>
    private static bool IsRefusal(byte[] received, byte[] answers)
    {
        var refusal = received.AsSpan().LastIndexOf("HTTP/1.1 400 Bad Request\r\n"u8);
        return refusal >= 0
            && answers.AsSpan().StartsWith(received.AsSpan(0, refusal))
            && (refusal == answers.Length || answers.AsSpan(refusal).StartsWith("HTTP/1.1 "u8));
    }

    private static async Task SendAsync(Socket client, ReadOnlyMemory<byte> bytes, (int Place, int Bytes)[] cuts)
    {
        var places = cuts
            .SelectMany(cut => Enumerable.Range((int)((long)bytes.Length * cut.Place / 1_000_000), cut.Bytes))
            .Where(place => place > 0 && place < bytes.Length)
            .Append(bytes.Length)
            .Distinct()
            .Order();
        var start = 0;
        foreach (var place in places)
        {
            await client.SendAllAsync(bytes[start..place]).OrTimeout();
            start = place;
        }
    }

    private static async Task<byte[]> ReceiveWhatComesAsync(Socket client)
    {
        using var all = new MemoryStream();
        var buffer = new byte[16 * 1024];
        try
        {
            for (int n; (n = await client.ReceiveAsync(buffer)) > 0;)
            {
                all.Write(buffer, 0, n);
            }
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            // The client's own end, or the server's answer to what it left unread.
        }

        return all.ToArray();
    }

    /// <summary>Answers with a request's body, for which it reads a part at a time and cancels reads as the request's path says.</summary>
    private sealed class Application
    {
        private int _running;

        public int Running => Volatile.Read(ref _running);

        public async Task AnswerAsync(HttpContext context)
        {
            Interlocked.Increment(ref _running);
            try
            {
                var body = await ReadAsync(context.Request, int.Parse(context.Request.Path.Value.AsSpan(1), CultureInfo.InvariantCulture));
                context.Response.Headers.Date = "fixed";
                context.Response.ContentLength = body.Length;
                await context.Response.Body.WriteAsync(body, context.RequestAborted);
            }
            catch (Exception exception) when (exception is IOException || (exception is OperationCanceledException && context.RequestAborted.IsCancellationRequested))
            {
                // The client has gone.
            }
            finally
            {
                Interlocked.Decrement(ref _running);
            }
        }

        private static async Task<byte[]> ReadAsync(HttpRequest request, int cancelEvery)
        {
            using var body = new MemoryStream();
            for (var read = 1; ; read++)
            {
                // Without a token: with one the handlers fail on Kestrel's own transport as well.
                var reading = request.BodyReader.ReadAsync();
                if (cancelEvery > 0 && read % (cancelEvery + 1) == 0)
                {
                    request.BodyReader.CancelPendingRead();
                }

                var result = await reading;
                foreach (var segment in result.Buffer)
                {
                    body.Write(segment.Span);
                }

                request.BodyReader.AdvanceTo(result.Buffer.End);
                if (result.IsCompleted)
                {
                    return body.ToArray();
                }
            }
        }
    }

    private sealed record Case((Body Body, int Size, int Chunk, int CancelEvery)[] Requests, (int Place, int Bytes)[] Cuts, Departure Departure, int Place)
    {
        public (byte[] Requests, byte[] Answers) Write()
        {
            using var requests = new MemoryStream();
            using var answers = new MemoryStream();
            foreach (var (kind, size, chunk, cancelEvery) in Requests)
            {
                var body = kind == Body.None ? [] : TestData.Bytes(size, seed: (int)requests.Length);
                var start = $"{(kind == Body.None ? "GET" : "POST")} /{cancelEvery} HTTP/1.1\r\nHost: a\r\n";
                switch (kind)
                {
                    case Body.None:
                        Append(requests, $"{start}\r\n");
                        break;
                    case Body.Sized:
                        Append(requests, $"{start}Content-Length: {size}\r\n\r\n");
                        requests.Write(body);
                        break;
                    default:
                        Append(requests, $"{start}Transfer-Encoding: chunked\r\n\r\n");
                        foreach (var part in body.Chunk(Math.Max(chunk, size / 100 + 1)))
                        {
                            Append(requests, $"{part.Length:x}\r\n");
                            requests.Write(part);
                            Append(requests, "\r\n");
                        }

                        Append(requests, "0\r\n\r\n");
                        break;
                }

                Append(answers, $"HTTP/1.1 200 OK\r\nContent-Length: {body.Length}\r\nDate: fixed\r\n\r\n");
                answers.Write(body);
            }

            return (requests.ToArray(), answers.ToArray());
        }

        public override string ToString() => $"{string.Join(", ", Requests)}; cut at {string.Join(", ", Cuts)}; {Departure} at {Place}";

        private static void Append(MemoryStream stream, string text) => stream.Write(Encoding.ASCII.GetBytes(text));
    }
}
