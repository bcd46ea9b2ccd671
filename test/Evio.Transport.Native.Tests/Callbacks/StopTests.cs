using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>The end of a server whose callbacks do not return: after its deadline nobody waits for them.</summary>
public sealed class StopTests
{
    private static readonly TimeSpan Deadline = TimeSpan.FromMilliseconds(100);

    public static TheoryData<string, LoopScheduling> Cases
    {
        get
        {
            var cases = new TheoryData<string, LoopScheduling>();
            foreach (string scheme in Site.Schemes)
            {
                cases.Add(scheme, LoopScheduling.Inline);
                cases.Add(scheme, LoopScheduling.Adaptive);
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task A_callback_that_does_not_return_is_not_waited_for(string scheme, LoopScheduling scheduling)
    {
        await using var site = new Site(scheme);
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        var closed = new Counter();
        var server = await site.StartAsync(
            new Events
            {
                Data = (_, _) =>
                {
                    entered.Set();
                    release.Await();
                    return EvioAction.None;
                },
                Closed = (_, _) =>
                {
                    closed.Add();
                    return EvioAction.None;
                },
            },
            scheduling);
        using var client = await site.ConnectAsync();
        await client.WriteAsync("x");
        entered.Await();

        await server.StopAsync(Deadline).Within();
        Assert.False(release.IsSet);
        Assert.Equal(0, closed.Value);

        // What is left is done when it returns.
        release.Set();
        await client.WaitForEndAsync();
        await closed.ReachesAsync(1);
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task A_last_callback_that_does_not_return_is_not_waited_for(string scheme, LoopScheduling scheduling)
    {
        await using var site = new Site(scheme);
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        using var left = new ManualResetEventSlim();
        var server = await site.StartAsync(
            new Events
            {
                Closed = (_, _) =>
                {
                    entered.Set();
                    release.Await();
                    left.Set();
                    return EvioAction.None;
                },
            },
            scheduling);
        using var client = await site.ConnectAsync();

        await server.StopAsync(Deadline).Within();
        entered.Await();
        Assert.False(left.IsSet);
        release.Set();
        left.Await();
    }

    /// <summary>Whose callbacks return, is waited for, however little time the stop has.</summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Without_time_everything_is_closed_and_told_nevertheless(string scheme, LoopScheduling scheduling)
    {
        const int Clients = 50;
        await using var site = new Site(scheme);
        var opened = new Counter();
        var closed = new Counter();
        var server = await site.StartAsync(
            new Events
            {
                NumLoops = 2,
                Opened = (_, ref _) =>
                {
                    opened.Add();
                    return EvioAction.None;
                },
                Closed = (_, _) =>
                {
                    closed.Add();
                    return EvioAction.None;
                },
            },
            scheduling);
        for (var i = 0; i < Clients; i++)
        {
            _ = await site.ConnectAsync();
        }

        await opened.ReachesAsync(Clients);
        await server.StopAsync(TimeSpan.Zero).Within();
        Assert.Equal(Clients, closed.Value);
    }
}
