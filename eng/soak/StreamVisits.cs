using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Evio.Soak;

/// <summary>Clients of the servers beneath HTTP: the raw ConnectionHandler, and those of the callback API.</summary>
internal static class StreamVisits
{
    private static readonly TimeSpan DatagramPatience = TimeSpan.FromSeconds(5);

    public static Task RawEchoAsync(Visit visit) => EchoAsync(visit, visit.Server.Raw);

    public static Task NativeEchoAsync(Visit visit) => EchoAsync(visit, visit.Server.Echo);

    private static async Task EchoAsync(Visit visit, int port)
    {
        using var wire = await visit.ConnectAsync(port);
        for (var left = visit.Random.Next(0, 10); left > 0; left--)
        {
            var sent = visit.Bytes(visit.Size(500_000));
            var sending = wire.SendInPiecesAsync(sent, visit.Random, visit.Cancellation);
            await wire.ExpectAsync(sent, visit.Cancellation);
            await sending;
            visit.Tally.Verified(sent.Length);
        }

        // What is on the way when the client ends its side comes back, and then the end.
        var last = visit.Bytes(visit.Size(100_000));
        await wire.SendAsync(last, visit.Cancellation);
        wire.ShutdownSend();
        visit.Tally.Fault();
        await wire.ExpectAsync(last, visit.Cancellation);
        await wire.ExpectEndAsync(visit.Cancellation);
        visit.Tally.Verified(last.Length);
    }

    public static async Task NativeHttpAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.NativeHttp);
        for (var left = visit.Random.Next(1, 6); left > 0; left--)
        {
            var count = visit.Random.Next(1, 40);
            var requests = Enumerable.Repeat(HttpVisits.Get("/"), count).SelectMany(static request => request).ToArray();
            var sending = wire.SendInPiecesAsync(requests, visit.Random, visit.Cancellation);
            for (; count > 0; count--)
            {
                HttpVisits.Check(visit, await wire.ReadReplyAsync(visit.Cancellation), "Hello, World!"u8.ToArray());
            }

            await sending;
        }
    }

    public static async Task RedisAsync(Visit visit)
    {
        using var wire = await visit.ConnectAsync(visit.Server.Redis);
        using var commands = new MemoryStream();
        using var replies = new MemoryStream();

        // No other visit has these keys, and they are gone in the end.
        var prefix = visit.Random.NextInt64().ToString("x", CultureInfo.InvariantCulture);
        for (var left = visit.Random.Next(1, 20); left > 0; left--)
        {
            var (key, value) = (Encoding.ASCII.GetBytes($"{prefix}-{left}"), visit.Bytes(visit.Size(50_000)));
            Command(commands, "SET"u8.ToArray(), key, value);
            Command(commands, "GET"u8.ToArray(), key);
            Command(commands, "DEL"u8.ToArray(), key);
            Command(commands, "GET"u8.ToArray(), key);
            replies.Write("+OK\r\n"u8);
            Bulk(replies, value);
            replies.Write(":1\r\n$-1\r\n"u8);
        }

        Command(commands, "QUIT"u8.ToArray());
        replies.Write("+OK\r\n"u8);
        var sending = wire.SendInPiecesAsync(commands.ToArray(), visit.Random, visit.Cancellation);
        await wire.ExpectAsync(replies.ToArray(), visit.Cancellation);
        await sending;
        await wire.ExpectEndAsync(visit.Cancellation);
        visit.Tally.Verified(replies.Length);
    }

    public static async Task DatagramsAsync(Visit visit)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        await socket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, visit.Server.Udp), visit.Cancellation);
        var buffer = new byte[2048];
        for (var number = 0L; number < 20; number++)
        {
            var datagram = visit.Bytes(visit.Random.Next(sizeof(long), 1400));
            BinaryPrimitives.WriteInt64LittleEndian(datagram, number);
            for (var attempt = 1; !await AskAsync(datagram); attempt++)
            {
                if (attempt == 5)
                {
                    throw new SoakException($"a datagram was sent {attempt} times, without an answer");
                }

                visit.Tally.Repeat();
            }

            visit.Tally.Verified(datagram.Length);
        }

        async Task<bool> AskAsync(byte[] datagram)
        {
            await socket.SendAsync(datagram, visit.Cancellation);
            using var patience = CancellationTokenSource.CreateLinkedTokenSource(visit.Cancellation);
            patience.CancelAfter(DatagramPatience);
            try
            {
                while (true)
                {
                    var count = await socket.ReceiveAsync(buffer, patience.Token);
                    var late = BinaryPrimitives.ReadInt64LittleEndian(buffer) < BinaryPrimitives.ReadInt64LittleEndian(datagram);
                    if (count < sizeof(long) || !late)
                    {
                        Wire.Compare(datagram, buffer.AsSpan(0, count));
                        return true;
                    }
                }
            }
            catch (OperationCanceledException) when (!visit.Cancellation.IsCancellationRequested)
            {
                return false;
            }
        }
    }

    private static void Command(MemoryStream commands, params byte[][] arguments)
    {
        commands.Write(Encoding.ASCII.GetBytes($"*{arguments.Length}\r\n"));
        foreach (var argument in arguments)
        {
            Bulk(commands, argument);
        }
    }

    private static void Bulk(MemoryStream stream, byte[] bytes)
    {
        stream.Write(Encoding.ASCII.GetBytes($"${bytes.Length}\r\n"));
        stream.Write(bytes);
        stream.Write("\r\n"u8);
    }
}
