using Evio.Transport.Testing;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Counts the descriptors of the whole process, so nothing else may run beside it.</summary>
[CollectionDefinition(nameof(DescriptorTests), DisableParallelization = true)]
[Collection(nameof(DescriptorTests))]
public sealed class DescriptorTests
{
    private const string Descriptors = "/proc/self/fd";

    [Theory, AllTransports(1, 2)]
    public async Task Descriptors_return_to_the_start_after_connections_of_all_ends(TransportKind kind, int loops)
    {
        Assert.SkipUnless(Directory.Exists(Descriptors), $"This system has no {Descriptors}.");
        await using var host = await TransportHost.StartAsync(
            kind, ClientEnds.AnswerAsync, new HostSettings { Transport = new TransportSettings { LoopCount = loops } });
        await ClientEnds.RunAsync(host, connections: 2 * ClientEnds.Count);
        var start = await Eventually.SettlesAsync(static () => Count());

        await ClientEnds.RunAsync(host, connections: 500);

        await Eventually.HoldsAsync(() => Count() <= start, () => $"{start} at the start, now {Count()}");
    }

    [Theory, AllTransports]
    public async Task Descriptors_return_to_the_start_after_hosts_came_and_went(TransportKind kind)
    {
        Assert.SkipUnless(Directory.Exists(Descriptors), $"This system has no {Descriptors}.");
        await StartAndStopAsync();
        var start = await Eventually.SettlesAsync(static () => Count());

        for (var i = 0; i < 10; i++)
        {
            await StartAndStopAsync();
        }

        await Eventually.HoldsAsync(() => Count() <= start, () => $"{start} at the start, now {Count()}");

        async Task StartAndStopAsync()
        {
            await using var host = await TransportHost.StartAsync(kind, ClientEnds.AnswerAsync);
            await ClientEnds.RunAsync(host, ClientEnds.Count);
            using var idle = await host.ConnectAsync();
            await host.StopAsync().OrTimeout();
        }
    }

    /// <summary>Counts sockets, epoll instances, event descriptors and pipes.</summary>
    /// <remarks>Not files: the runtime keeps open what it loads, such as assemblies and their symbols.</remarks>
    internal static int Count() => Directory.GetFileSystemEntries(Descriptors)
        .Count(static entry => new FileInfo(entry).LinkTarget is { } target && !target.StartsWith('/'));
}
