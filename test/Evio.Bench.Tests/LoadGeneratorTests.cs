using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Evio.Bench.Tests;

/// <summary>What load.c takes for an answer.</summary>
public sealed class LoadGeneratorTests : IClassFixture<LoadGeneratorTests.Program>
{
    private const string Head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    private readonly Program _program;

    public LoadGeneratorTests(Program program)
    {
        Assert.SkipUnless(Tool.Compiler.IsInstalled, "There is no C compiler.");
        _program = program;
    }

    [Theory]
    [InlineData("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 1000)]
    [InlineData(Head + "5\r\nhello\r\n0\r\n\r\n", 1000)]
    [InlineData(Head + "5\r\nhello\r\n0\r\n\r\n", 1)]
    [InlineData(Head + "0\r\n\r\n", 1)]
    [InlineData(Head + "1a\r\nabcdefghijklmnopqrstuvwxyz\r\n2\r\n\r\n\r\n0\r\n\r\n", 1)]
    [InlineData(Head + "1a\r\nabcdefghijklmnopqrstuvwxyz\r\n2\r\n\r\n\r\n0\r\n\r\n", 7)]
    public async Task AnAnswerIsTakenInAnyPieces(string answer, int pieceSize)
    {
        var result = await RunAsync(answer, pieceSize);

        Assert.Equal((0, null), (result.Failed, result.Failure));
        Assert.True(result.Requests > 0);
    }

    [Theory]
    [InlineData(Head + "\r\nhello\r\n0\r\n\r\n", "what had to be a chunk is none")]
    [InlineData(Head + "x\r\nhello\r\n0\r\n\r\n", "what had to be a chunk is none")]
    [InlineData(Head + "4\r\nhello\r\n0\r\n\r\n", "what had to be a chunk is none")]
    [InlineData(Head + "5\r\nhello\r\n0\r\nX: y\r\n\r\n", "what had to be a chunk is none")]
    [InlineData(Head + "5\r\nhello\r\n0\r\n\r\nmore", "more bytes than the answer has")]
    [InlineData("HTTP/1.1 200 OK\r\n\r\nhello", "unexpected answer: HTTP/1.1 200 OK")]
    [InlineData("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "unexpected answer: HTTP/1.1 404 Not Found")]
    public async Task AnotherAnswerIsAFailure(string answer, string failure)
    {
        var result = await RunAsync(answer, answer.Length);

        Assert.True(result.Failed > 0);
        Assert.Equal(failure, result.Failure);
    }

    private async Task<LoadResult> RunAsync(string answer, int pieceSize)
    {
        using var end = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        var port = ((IPEndPoint)listener.LocalEndPoint!).Port;

        var serving = ServeAsync(listener, Encoding.ASCII.GetBytes(answer), pieceSize, end.Token);
        var output = await Child.RunToEndAsync(
            new ProcessStartInfo(_program.Path, ["http", "--port", $"{port}", "--seconds", "1", "--connections", "1", "--path", "/"]), end.Token);
        await end.CancelAsync();
        await serving;
        return OwnLoad.Parse(output);
    }

    /// <summary>Answers each request, in pieces, until the end.</summary>
    private static async Task ServeAsync(Socket listener, byte[] answer, int pieceSize, CancellationToken end)
    {
        var input = new byte[4096];
        while (!end.IsCancellationRequested)
        {
            try
            {
                using var connection = await listener.AcceptAsync(end);
                connection.NoDelay = true;
                while (await connection.ReceiveAsync(input, end) > 0)
                {
                    for (var sent = 0; sent < answer.Length; sent += pieceSize)
                    {
                        await connection.SendAsync(answer.AsMemory(sent, Math.Min(pieceSize, answer.Length - sent)), end);
                    }
                }
            }
            catch (Exception gone) when (gone is SocketException or OperationCanceledException)
            {
                // The generator breaks a connection off when an answer is wrong.
            }
        }
    }

    /// <summary>load.c, compiled.</summary>
    public sealed class Program : IAsyncLifetime
    {
        private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("evio-load-");

        public string Path => System.IO.Path.Combine(_folder.FullName, "load");

        public async ValueTask InitializeAsync()
        {
            if (Tool.Compiler.IsInstalled)
            {
                await Tool.CompileAsync(System.IO.Path.Combine(Workshop.Find().Root, "eng/bench/load.c"), Path, TestContext.Current.CancellationToken);
            }
        }

        public ValueTask DisposeAsync()
        {
            _folder.Delete(recursive: true);
            return ValueTask.CompletedTask;
        }
    }
}
