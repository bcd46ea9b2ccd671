using System.Buffers.Binary;
using System.Net.Sockets;
using Evio.Transport.Testing;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>A client that speaks HTTP/2 in single frames (RFC 9113, 4.1), for what <see cref="HttpClient"/> hides.</summary>
internal sealed class RawHttp2Client : IDisposable
{
    /// <summary>GET / of the host "a", in HPACK's static table (RFC 7541, appendix A).</summary>
    public static readonly byte[] Get = [0x82, 0x86, 0x84, 0x41, 1, (byte)'a'];

    private static readonly byte[] Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8.ToArray();

    private RawHttp2Client(Socket socket) => Socket = socket;

    public enum FrameType : byte
    {
        Data = 0,
        Headers = 1,
        ResetStream = 3,
        Settings = 4,
        Ping = 6,
        GoAway = 7,
        WindowUpdate = 8,
    }

    public Socket Socket { get; }

    /// <summary>Connects, and exchanges the settings.</summary>
    public static async Task<RawHttp2Client> ConnectAsync(TransportHost host)
    {
        var client = new RawHttp2Client(await host.ConnectAsync());
        await client.Socket.SendAllAsync((byte[])[.. Preface, .. Frame(FrameType.Settings, 0, 0, [])]).OrTimeout();
        await client.ReadUntilAsync(static frame => frame.Type is FrameType.Settings && frame.Flags == 1);
        return client;
    }

    public static byte[] Frame(FrameType type, byte flags, int stream, ReadOnlySpan<byte> payload)
    {
        var frame = new byte[9 + payload.Length];
        BinaryPrimitives.WriteInt32BigEndian(frame, payload.Length << 8);
        frame[3] = (byte)type;
        frame[4] = flags;
        BinaryPrimitives.WriteInt32BigEndian(frame.AsSpan(5), stream);
        payload.CopyTo(frame.AsSpan(9));
        return frame;
    }

    public Task SendAsync(FrameType type, byte flags, int stream, byte[] payload) =>
        Socket.SendAllAsync(Frame(type, flags, stream, payload)).OrTimeout();

    /// <summary>Begins and ends a request without a body.</summary>
    public Task GetAsync(int stream) => SendAsync(FrameType.Headers, flags: 0x5, stream, Get);

    /// <summary>Shows that the connection is alive: a ping comes back.</summary>
    public async Task PingAsync()
    {
        await SendAsync(FrameType.Ping, 0, 0, new byte[8]);
        await ReadUntilAsync(static frame => frame.Type is FrameType.Ping && frame.Flags == 1);
    }

    /// <summary>Reads frames, answering none, up to the one that is waited for.</summary>
    public async Task<ReceivedFrame> ReadUntilAsync(Func<ReceivedFrame, bool> isAwaited)
    {
        while (true)
        {
            var head = await Socket.ReceiveExactlyAsync(9).OrTimeout();
            var payload = await Socket.ReceiveExactlyAsync(BinaryPrimitives.ReadInt32BigEndian(head) >> 8).OrTimeout();
            var frame = new ReceivedFrame(
                (FrameType)head[3], head[4], BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(5)) & int.MaxValue, payload);
            if (isAwaited(frame))
            {
                return frame;
            }
        }
    }

    public void Dispose() => Socket.Dispose();

    public sealed record ReceivedFrame(FrameType Type, byte Flags, int Stream, byte[] Payload)
    {
        public bool EndsStream => Type is FrameType.Data or FrameType.Headers && (Flags & 1) != 0;
    }
}
