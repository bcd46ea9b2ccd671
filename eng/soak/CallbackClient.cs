using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native;

namespace Evio.Soak;

/// <summary>A connection to the callback server, which checks all that comes as it comes.</summary>
internal sealed class CallbackClient : IAsyncDisposable
{
    private readonly CallbackVisit _visit;
    private readonly Socket _socket;
    private readonly Random _random;
    private readonly Answers _answers;
    private readonly SemaphoreSlim _progress = new(0);
    private readonly Task _reading;
    private int _asked;
    private bool _disposed;

    private CallbackClient(CallbackVisit visit, Socket socket)
    {
        _visit = visit;
        _socket = socket;
        Identity = visit.Random.NextInt64(1, long.MaxValue);
        _random = new Random(unchecked((int)Identity));
        _answers = new Answers(Identity);
        _reading = Task.Run(ReadAsync);
    }

    public long Identity { get; }

    public bool IsUnix => _socket.AddressFamily == AddressFamily.Unix;

    /// <exception cref="SocketException">The server has ended it before the client had said who it is.</exception>
    public static async Task<CallbackClient> ConnectAsync(CallbackVisit visit, EndPoint endPoint)
    {
        var socket = new Socket(endPoint.AddressFamily, SocketType.Stream, endPoint is IPEndPoint ? ProtocolType.Tcp : ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(endPoint, visit.Cancellation);
        }
        catch
        {
            socket.Dispose();
            throw;
        }

        var client = new CallbackClient(visit, socket);
        try
        {
            await client.AskAsync(MessageKind.Hello);
        }
        catch
        {
            await client.DisposeAsync();
            throw;
        }

        return client;
    }

    public void Expect(MessageKind kind, long argument, int count = 1)
    {
        lock (_answers)
        {
            _answers.Expect(kind, argument, count);
        }
    }

    public async Task AskAsync(MessageKind kind, long argument = 0, int length = 0)
    {
        ReadOnlyMemory<byte> bytes = new Message(Identity, kind, _asked++, argument, length).ToBytes();
        while (!bytes.IsEmpty)
        {
            var piece = _random.Next(4) == 0 ? Math.Min(bytes.Length, _random.Next(1, 2000)) : bytes.Length;
            bytes = bytes[await _socket.SendAsync(bytes[..piece], _visit.Cancellation)..];
        }
    }

    public Task AskForEchoAsync(int length, MessageKind kind = MessageKind.Echo, long argument = 0)
    {
        Expect(MessageKind.Echoed, 0);
        return AskAsync(kind, argument, length);
    }

    public Task AskForSendsAsync(int count, int length)
    {
        Expect(MessageKind.Sent, _asked, count);
        return AskAsync(MessageKind.Send, count, length);
    }

    public Task AskForWakesAsync(int count)
    {
        Expect(MessageKind.Woken, 0, count);
        return AskAsync(MessageKind.Wake, count);
    }

    public Task AskForOneAsync(MessageKind ask, MessageKind answer, int argument)
    {
        Expect(answer, _asked);
        return AskAsync(ask, argument);
    }

    /// <summary>Waits until all has come that was asked for.</summary>
    public async Task WaitForAnswersAsync()
    {
        while (true)
        {
            lock (_answers)
            {
                if (_answers.AreComplete)
                {
                    return;
                }
            }

            if (_reading.IsCompleted)
            {
                await _reading;
                lock (_answers)
                {
                    // What came last may have completed it.
                    if (!_answers.AreComplete)
                    {
                        throw new SoakException($"the connection has ended without {_answers.Missing}");
                    }
                }

                return;
            }

            try
            {
                await _progress.WaitAsync(_visit.Cancellation);
            }
            catch (OperationCanceledException)
            {
                lock (_answers)
                {
                    throw new SoakException($"hangs, without {_answers.Missing}");
                }
            }
        }
    }

    /// <summary>Waits for the server's end of the connection.</summary>
    /// <exception cref="SocketException">It was a reset.</exception>
    public Task WaitForEndAsync() => _reading;

    public void ShutdownSend() => _socket.Shutdown(SocketShutdown.Send);

    /// <summary>Closes with RST instead of FIN.</summary>
    public void Reset()
    {
        _disposed = true;
        _socket.LingerState = new LingerOption(true, 0);
        _socket.Dispose();
    }

    public async ValueTask DisposeAsync()
    {
        _disposed = true;
        _socket.Dispose();
        try
        {
            await _reading;
        }
        catch (Exception end) when (end is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // Nothing more was waited for.
        }

        _progress.Dispose();
    }

    private async Task ReadAsync()
    {
        var input = new InputStream();
        var buffer = new byte[64 * 1024];
        var isSlow = _random.Next(4) == 0;
        try
        {
            while (await _socket.ReceiveAsync(buffer, _visit.Cancellation) is var count and > 0)
            {
                Receive(input, buffer.AsSpan(0, count));
                _progress.Release();
                if (isSlow && count > 10_000)
                {
                    await Task.Delay(1, _visit.Cancellation);
                }
            }
        }
        catch (Exception end) when (_disposed && end is SocketException or ObjectDisposedException)
        {
            // The client's own end.
        }
        finally
        {
            _progress.Release();
        }
    }

    private void Receive(InputStream input, ReadOnlySpan<byte> packet)
    {
        var data = input.Begin(packet);
        lock (_answers)
        {
            while (Message.TryRead(ref data, out var answer))
            {
                _answers.Receive(answer);
                _visit.Tally.Verified(answer.Size);
            }
        }

        input.End(data);
    }
}
