using Evio.Transport;

namespace Evio.Samples.WebApp;

/// <summary>What <c>/info</c> answers. <see cref="Balance"/> is null and <see cref="Loops"/> empty where there are no evio loops.</summary>
internal sealed record ServerInfo(
    string Transport, string Scheduling, string? Balance, IReadOnlyList<LoopInfo> Loops, int ProcessId, long AbortedRequests);

internal sealed record LoopInfo(int Index, int Connections);

/// <summary>The server's settings and live numbers.</summary>
internal sealed class ServerState(Settings settings, IServiceProvider services)
{
    private long _abortedRequests;

    public void CountAbortedRequest() => Interlocked.Increment(ref _abortedRequests);

    public ServerInfo Describe() => new(
        Settings.Spell(settings.Transport),
        Settings.Spell(settings.Scheduling),
        settings.Transport == TransportKind.Evio ? Settings.Spell(settings.Balance) : null,
        // The factory is not registered on the Sockets transport.
        [.. (services.GetService<EvioTransportFactory>()?.Loops ?? []).Select(static loop => new LoopInfo(loop.Index, loop.ConnectionCount))],
        Environment.ProcessId,
        Interlocked.Read(ref _abortedRequests));
}
