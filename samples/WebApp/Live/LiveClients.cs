using System.Net;
using System.Net.Security;
using System.Net.Sockets;

namespace Evio.Samples.WebApp.Live;

/// <summary>What the page's button has opened.</summary>
internal sealed record ClientBatch(int Connections, int Seconds);

/// <summary>Clients of this server in this process, on the framework's sockets, so that there is something to see.</summary>
internal sealed partial class LiveClients(IHostApplicationLifetime lifetime, ILogger<LiveClients> logger)
{
    /// <summary>Connections of one batch.</summary>
    public const int Count = 50;

    /// <summary>Batches at the same time.</summary>
    public const int MaxBatches = 4;

    private static readonly TimeSpan Duration = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);

    private int _batches;

    /// <summary>Opens a batch of connections, each of which then sends ten requests per second for ten seconds.</summary>
    /// <param name="server">Where the server listens.</param>
    /// <param name="scheme"><c>http</c> or <c>https</c>.</param>
    /// <returns>The batch, when all its connections have had an answer; null when there are enough already.</returns>
    /// <exception cref="HttpRequestException">A connection cannot be opened.</exception>
    public async Task<ClientBatch?> TryOpenAsync(EndPoint server, string scheme)
    {
        if (Interlocked.Increment(ref _batches) > MaxBatches)
        {
            Interlocked.Decrement(ref _batches);
            return null;
        }

        var clients = Enumerable.Range(0, Count).Select(_ => CreateClient(server, scheme)).ToArray();
        try
        {
            await Task.WhenAll(clients.Select(client => client.GetByteArrayAsync("/plaintext", lifetime.ApplicationStopping)));
        }
        catch
        {
            End(clients);
            throw;
        }

        _ = RunAsync(clients);
        return new ClientBatch(Count, (int)Duration.TotalSeconds);
    }

    private async Task RunAsync(HttpClient[] clients)
    {
        using var end = CancellationTokenSource.CreateLinkedTokenSource(lifetime.ApplicationStopping);
        end.CancelAfter(Duration);
        try
        {
            await Task.WhenAll(clients.Select(client => AskAsync(client, end.Token)));
        }
        catch (OperationCanceledException) when (end.IsCancellationRequested)
        {
            // The time is over.
        }
        catch (HttpRequestException failed)
        {
            LogFailed(logger, failed);
        }
        finally
        {
            End(clients);
        }
    }

    private void End(HttpClient[] clients)
    {
        foreach (var client in clients)
        {
            client.Dispose();
        }

        Interlocked.Decrement(ref _batches);
    }

    private static async Task AskAsync(HttpClient client, CancellationToken end)
    {
        // Not all at the same moment.
        await Task.Delay(Random.Shared.Next((int)Pause.TotalMilliseconds), end);
        while (true)
        {
            await Task.Delay(Pause, end);
            await client.GetByteArrayAsync("/plaintext", end);
        }
    }

    /// <summary>A client whose one connection goes to <paramref name="server"/>.</summary>
    private static HttpClient CreateClient(EndPoint server, string scheme) => new(new SocketsHttpHandler
    {
        UseProxy = false,
        MaxConnectionsPerServer = 1,
        ConnectCallback = async (_, cancellationToken) =>
        {
            var protocol = server is UnixDomainSocketEndPoint ? ProtocolType.Unspecified : ProtocolType.Tcp;
            var socket = new Socket(server.AddressFamily, SocketType.Stream, protocol);
            try
            {
                await socket.ConnectAsync(server, cancellationToken);
                return new NetworkStream(socket, ownsSocket: true);
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        },
        SslOptions = new SslClientAuthenticationOptions
        {
            // The server is this process, with a certificate that it made for itself.
            RemoteCertificateValidationCallback = static (_, certificate, _, _) => certificate?.Subject == "CN=localhost",
        },
    })
    {
        BaseAddress = new Uri($"{scheme}://localhost/"),
    };

    [LoggerMessage(1, LogLevel.Warning, "A connection of the page's has failed")]
    private static partial void LogFailed(ILogger logger, Exception failed);
}
