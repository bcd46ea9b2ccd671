using System.Buffers.Text;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Evio.Soak;

/// <summary>A TCP connection whose every byte the client decides on, and a reader of HTTP/1.1 answers that takes nothing for granted.</summary>
internal sealed class Wire : IDisposable
{
    private readonly Socket _socket;
    private readonly byte[] _buffer = new byte[16 * 1024];
    private int _start;
    private int _end;

    private Wire(Socket socket) => _socket = socket;

    /// <param name="port">Of this machine.</param>
    /// <param name="cancellation">Ends the attempt.</param>
    /// <param name="receiveBuffer">For clients that the server is to be held up by; 0 leaves the system's.</param>
    public static async Task<Wire> ConnectAsync(int port, CancellationToken cancellation, int receiveBuffer = 0)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            if (receiveBuffer > 0)
            {
                socket.ReceiveBufferSize = receiveBuffer;
            }

            await socket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port), cancellation);
            return new Wire(socket);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    public async Task SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellation)
    {
        while (!bytes.IsEmpty)
        {
            bytes = bytes[await _socket.SendAsync(bytes, cancellation)..];
        }
    }

    /// <summary>Sends in pieces of any sizes, with a breath between some of them.</summary>
    public async Task SendInPiecesAsync(ReadOnlyMemory<byte> bytes, Random random, CancellationToken cancellation)
    {
        var largest = random.Next(3) switch { 0 => 16, 1 => 2000, _ => 64 * 1024 };
        for (var pieces = 0; !bytes.IsEmpty; pieces++)
        {
            // Not thousands of tiny ones.
            var size = Math.Min(bytes.Length, pieces < 64 ? random.Next(1, largest + 1) : 64 * 1024);
            await SendAsync(bytes[..size], cancellation);
            bytes = bytes[size..];
            if (random.Next(8) == 0)
            {
                await Task.Delay(random.Next(3), cancellation);
            }
        }
    }

    /// <summary>Receives what is there, at least one byte unless the server has ended.</summary>
    public async ValueTask<int> ReadAsync(Memory<byte> room, CancellationToken cancellation)
    {
        if (_start == _end)
        {
            if (room.Length >= _buffer.Length)
            {
                return await _socket.ReceiveAsync(room, cancellation);
            }

            (_start, _end) = (0, await _socket.ReceiveAsync(_buffer, cancellation));
        }

        var count = Math.Min(room.Length, _end - _start);
        _buffer.AsMemory(_start, count).CopyTo(room);
        _start += count;
        return count;
    }

    public async Task ReadExactlyAsync(Memory<byte> room, CancellationToken cancellation)
    {
        for (var got = 0; got < room.Length;)
        {
            var count = await ReadAsync(room[got..], cancellation);
            if (count == 0)
            {
                throw new ConnectionEndException(got, room.Length);
            }

            got += count;
        }
    }

    public async Task ExpectAsync(ReadOnlyMemory<byte> expected, CancellationToken cancellation)
    {
        var got = new byte[expected.Length];
        await ReadExactlyAsync(got, cancellation);
        Compare(expected.Span, got);
    }

    public async Task ExpectEndAsync(CancellationToken cancellation)
    {
        var extra = new byte[1];
        if (await ReadAsync(extra, cancellation) != 0)
        {
            throw new SoakException($"a byte {extra[0]} where the end must be");
        }
    }

    /// <summary>A line of text, without its end.</summary>
    public async Task<string> ReadLineAsync(CancellationToken cancellation)
    {
        var line = new StringBuilder();
        var one = new byte[1];
        while (true)
        {
            await ReadExactlyAsync(one, cancellation);
            if (one[0] == '\n' && line.Length > 0 && line[^1] == '\r')
            {
                return line.ToString(0, line.Length - 1);
            }

            line.Append((char)one[0]);
            if (line.Length > 8192)
            {
                throw new SoakException("a line without end");
            }
        }
    }

    public async Task<Reply> ReadReplyAsync(CancellationToken cancellation)
    {
        var (status, length) = await ReadHeadAsync(cancellation);
        using var body = new MemoryStream();
        if (length is { } known)
        {
            var bytes = new byte[known];
            await ReadExactlyAsync(bytes, cancellation);
            return new Reply(status, bytes);
        }

        while (true)
        {
            var line = await ReadLineAsync(cancellation);
            if (!Utf8Parser.TryParse(Encoding.ASCII.GetBytes(line), out int size, out var used, 'x') || used != line.Length)
            {
                throw new SoakException($"'{line}' where a chunk's size must be");
            }

            var chunk = new byte[size];
            await ReadExactlyAsync(chunk, cancellation);
            body.Write(chunk);
            await ExpectAsync("\r\n"u8.ToArray(), cancellation);
            if (size == 0)
            {
                return new Reply(status, body.ToArray());
            }
        }
    }

    /// <returns>The status, and the body's length; null for chunks.</returns>
    public async Task<(int Status, int? Length)> ReadHeadAsync(CancellationToken cancellation)
    {
        var first = await ReadLineAsync(cancellation);
        if (!first.StartsWith("HTTP/1.1 ", StringComparison.Ordinal) || !int.TryParse(first.AsSpan(9, 3), out var status))
        {
            throw new SoakException($"'{first}' where an answer must begin");
        }

        int? length = null;
        var isChunked = false;
        while (await ReadLineAsync(cancellation) is { Length: > 0 } line)
        {
            if (line.StartsWith("Content-Length: ", StringComparison.OrdinalIgnoreCase))
            {
                length = int.Parse(line.AsSpan(16), provider: null);
            }

            isChunked |= line.Equals("Transfer-Encoding: chunked", StringComparison.OrdinalIgnoreCase);
        }

        return length is null == isChunked ? (status, length) : throw new SoakException($"'{first}' and no way to tell the end of its body");
    }

    public void ShutdownSend() => _socket.Shutdown(SocketShutdown.Send);

    /// <summary>Closes with RST instead of FIN.</summary>
    public void Reset()
    {
        _socket.LingerState = new LingerOption(true, 0);
        _socket.Dispose();
    }

    public void Dispose() => _socket.Dispose();

    public static void Compare(ReadOnlySpan<byte> expected, ReadOnlySpan<byte> got)
    {
        var common = expected.CommonPrefixLength(got);
        if (common != expected.Length || common != got.Length)
        {
            throw new SoakException($"{expected.Length} bytes must have come, and {got.Length} did, of which the first {common} are right");
        }
    }
}

internal sealed record Reply(int Status, byte[] Body);
