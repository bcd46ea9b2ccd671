using System.Net;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>A place to serve at, fresh for each test: a free port of 127.0.0.1, or a socket file in a directory of its own.</summary>
internal sealed class Site : IAsyncDisposable
{
    /// <summary>How long anything may take. Nothing comes near it; it turns a hang into a failure.</summary>
    internal static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    private readonly DirectoryInfo? _directory;
    private readonly List<Client> _clients = [];

    internal Site(string scheme)
    {
        if (scheme.StartsWith("unix", StringComparison.Ordinal))
        {
            _directory = Directory.CreateTempSubdirectory("evio");
            Path = System.IO.Path.Combine(_directory.FullName, "socket");
            Address = $"{scheme}://{Path}";
        }
        else
        {
            Path = "";
            Address = $"{scheme}://127.0.0.1:0";
        }
    }

    /// <summary>Poller and fallback, each over both kinds of streams.</summary>
    public static TheoryData<string> Schemes => ["tcp", "tcp-net", "unix", "unix-net"];

    /// <summary>Poller and fallback, for what depends on TCP.</summary>
    public static TheoryData<string> TcpSchemes => ["tcp", "tcp-net"];

    /// <summary>Poller and fallback, for what depends on Unix-domain sockets.</summary>
    public static TheoryData<string> UnixSchemes => ["unix", "unix-net"];

    internal string Address { get; }

    internal string Path { get; }

    internal EvioServer? Server { get; private set; }

    /// <param name="events">What the server does.</param>
    /// <param name="scheduling">Given by tests of what is not the same in all modes.</param>
    internal async Task<EvioServer> StartAsync(Events events, LoopScheduling? scheduling = null) =>
        Server = await EvioServer.StartAsync(TestScheduling.Apply(events, scheduling), Address).Within();

    /// <summary>Serves until a callback ends it, on a thread that may block.</summary>
    internal Task ServeAsync(Events events, LoopScheduling? scheduling = null) =>
        Task.Run(() => EvioServer.Serve(TestScheduling.Apply(events, scheduling), Address));

    internal Task<Client> ConnectAsync() => ConnectAsync(Server!);

    internal async Task<Client> ConnectAsync(EvioServer server)
    {
        var client = await Client.ConnectAsync(server.Addresses[0]);
        lock (_clients)
        {
            _clients.Add(client);
        }

        return client;
    }

    /// <summary>Connects, and waits until the server ends the connection, which it may do before the client is done connecting.</summary>
    internal async Task ConnectAndWaitForEndAsync()
    {
        try
        {
            using var client = await ConnectAsync();
            await client.WaitForEndAsync();
        }
        catch (SocketException exception) when (exception.SocketErrorCode == SocketError.ConnectionReset)
        {
            // So soon.
        }
    }

    /// <summary>Stops the server, if it still runs; a failure that the test has not asked for fails it here.</summary>
    public async ValueTask DisposeAsync()
    {
        _clients.ForEach(static client => client.Dispose());
        if (Server is { } server)
        {
            await server.DisposeAsync().AsTask().Within();
        }

        _directory?.Delete(recursive: true);
    }
}

/// <summary>A blocking peer, made of the BCL alone.</summary>
internal sealed class Client : IDisposable
{
    private readonly NetworkStream _stream;

    private Client(Socket socket)
    {
        Socket = socket;
        _stream = new NetworkStream(socket);
    }

    internal Socket Socket { get; }

    internal static Socket NewSocket(EndPoint server) =>
        server is IPEndPoint
            ? new Socket(server.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true }
            : new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

    internal static async Task<Client> ConnectAsync(EndPoint server)
    {
        var socket = NewSocket(server);
        await socket.ConnectAsync(server).Within();
        return new Client(socket);
    }

    internal Task WriteAsync(ReadOnlyMemory<byte> data) => _stream.WriteAsync(data).AsTask().Within();

    internal async Task<byte[]> ReadAsync(int count)
    {
        var data = new byte[count];
        await _stream.ReadExactlyAsync(data).AsTask().Within();
        return data;
    }

    /// <summary>All up to and including <paramref name="mark"/>.</summary>
    internal async Task<byte[]> ReadUntilAsync(string mark)
    {
        var data = new List<byte>();
        while (!data.TakeLast(mark.Length).SequenceEqual(Encoding.ASCII.GetBytes(mark)))
        {
            data.AddRange(await ReadAsync(1));
        }

        return [.. data];
    }

    /// <summary>All until the server's end of output.</summary>
    internal async Task<byte[]> ReadToEndAsync()
    {
        var data = new MemoryStream();
        await _stream.CopyToAsync(data).Within();
        return data.ToArray();
    }

    /// <summary>Waits for the end of the connection, whichever way it comes, and drops what comes before.</summary>
    internal async Task WaitForEndAsync()
    {
        try
        {
            _ = await ReadToEndAsync();
        }
        catch (IOException)
        {
            // A reset.
        }
    }

    internal Task WriteAsync(string text) => WriteAsync(Encoding.ASCII.GetBytes(text));

    internal async Task ExpectAsync(string text) => Assert.Equal(text, Encoding.ASCII.GetString(await ReadAsync(text.Length)));

    internal async Task ExpectToEndAsync(string text) => Assert.Equal(text, Encoding.ASCII.GetString(await ReadToEndAsync()));

    internal async Task ExpectEchoAsync(string text)
    {
        await WriteAsync(text);
        await ExpectAsync(text);
    }

    internal async Task<byte[]> EchoAsync(byte[] data)
    {
        // At the same time: neither side could take all of it before the other reads.
        var echo = ReadAsync(data.Length);
        await WriteAsync(data);
        return await echo;
    }

    internal void ShutdownSend() => Socket.Shutdown(SocketShutdown.Send);

    /// <summary>Closes so that the peer sees a reset.</summary>
    internal void Reset() => Socket.Close(0);

    public void Dispose() => _stream.Socket.Dispose();
}

internal static class Waiting
{
    /// <summary>Fails instead of waiting for ever.</summary>
    internal static Task Within(this Task task) => task.WaitAsync(Site.Limit);

    /// <inheritdoc cref="Within(Task)"/>
    internal static Task<T> Within<T>(this Task<T> task) => task.WaitAsync(Site.Limit);
}
