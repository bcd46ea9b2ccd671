using System.Net;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Evio.Transport.Tests;

public sealed class EvioTransportOptionsTests
{
    public static TheoryData<string, Action<EvioTransportOptions>, string, string> OutOfRange => new()
    {
        { nameof(EvioTransportOptions.LoopCount), static o => o.LoopCount = -2, "-2", "from 1 to 1024" },
        { nameof(EvioTransportOptions.LoopCount), static o => o.LoopCount = 1025, "1025", "from 1 to 1024" },
        { nameof(EvioTransportOptions.LoadBalance), static o => o.LoadBalance = (LoadBalance)3, "3", "Random, RoundRobin, Least" },
        { nameof(EvioTransportOptions.Scheduling), static o => o.Scheduling = (LoopScheduling)(-1), "-1", "Adaptive, Inline, ThreadPool" },
        { nameof(EvioTransportOptions.MaxBlockedThreads), static o => o.MaxBlockedThreads = 0, "0", "at least 1" },
        { nameof(EvioTransportOptions.LoopAffinity), static o => o.LoopAffinity = [0, -1], "0, -1", "from 0 to 1023" },
        { nameof(EvioTransportOptions.LoopAffinity), static o => o.LoopAffinity = [1024], "1024", "from 0 to 1023" },
        { nameof(EvioTransportOptions.LoopAffinity), static o => o.LoopAffinity = null!, "null", "or empty" },
        { nameof(EvioTransportOptions.Backlog), static o => o.Backlog = 0, "0", "from 1 to 65535" },
        { nameof(EvioTransportOptions.Backlog), static o => o.Backlog = 65536, "65536", "from 1 to 65535" },
        { nameof(EvioTransportOptions.MaxReadBufferSize), static o => o.MaxReadBufferSize = -1, "-1", "from 1 on" },
        { nameof(EvioTransportOptions.MaxWriteBufferSize), static o => o.MaxWriteBufferSize = -7, "-7", "from 1 on" },
        { nameof(EvioTransportOptions.ConnectTimeout), static o => o.ConnectTimeout = TimeSpan.Zero, "00:00:00", "from 1 ms" },
        { nameof(EvioTransportOptions.ConnectTimeout), static o => o.ConnectTimeout = TimeSpan.FromDays(25), "25.00:00:00", "24 days" },
        { nameof(EvioTransportOptions.UnixSocketMode), static o => o.UnixSocketMode = (UnixFileMode)0x200, "1000", "from 0 to 777" },
    };

    public static TheoryData<string, Action<EvioTransportOptions>> InRange => new()
    {
        { "one loop per processor", static o => o.LoopCount = -1 },
        { "one loop by zero", static o => o.LoopCount = 0 },
        { "one loop", static o => o.LoopCount = 1 },
        { "the most loops", static o => o.LoopCount = 1024 },
        { "loops that are bound to a processor", static o => o.LoopAffinity = [0, 1023] },
        { "the shortest backlog", static o => o.Backlog = 1 },
        { "the longest backlog", static o => o.Backlog = 65535 },
        { "unlimited reading by null", static o => o.MaxReadBufferSize = null },
        { "unlimited reading by zero", static o => o.MaxReadBufferSize = 0 },
        { "the smallest read buffer", static o => o.MaxReadBufferSize = 1 },
        { "unlimited writing by null", static o => o.MaxWriteBufferSize = null },
        { "unlimited writing by zero", static o => o.MaxWriteBufferSize = 0 },
        { "the smallest write buffer", static o => o.MaxWriteBufferSize = 1 },
        { "connecting as long as the kernel does", static o => o.ConnectTimeout = Timeout.InfiniteTimeSpan },
        { "the shortest time to connect", static o => o.ConnectTimeout = TimeSpan.FromMilliseconds(1) },
        { "a socket file for the superuser alone", static o => o.UnixSocketMode = UnixFileMode.None },
        { "a socket file for everybody", static o => o.UnixSocketMode = (UnixFileMode)0x1FF },
    };

    [Theory, MemberData(nameof(OutOfRange))]
    public async Task A_value_out_of_range_is_refused_by_name_value_and_range(
        string option, Action<EvioTransportOptions> configure, string value, string permitted)
    {
        await using var provider = Services(configure);

        var exception = Assert.Throws<OptionsValidationException>(() => ReadOptions(provider));

        var failure = Assert.Single(exception.Failures);
        Assert.StartsWith($"{nameof(EvioTransportOptions)}.{option} is {value};", failure, StringComparison.Ordinal);
        Assert.Contains(permitted, failure, StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(OutOfRange))]
    public async Task A_value_out_of_range_prevents_binding(
        string option, Action<EvioTransportOptions> configure, string value, string permitted)
    {
        await using var provider = Services(configure);

        var exception = await Assert.ThrowsAsync<OptionsValidationException>(
            async () => await provider.GetRequiredService<IConnectionListenerFactory>().BindAsync(new IPEndPoint(IPAddress.Loopback, 0)));

        Assert.Contains(option, exception.Message, StringComparison.Ordinal);
        Assert.Contains(value, exception.Message, StringComparison.Ordinal);
        Assert.Contains(permitted, exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Every_value_out_of_range_is_named_at_once()
    {
        await using var provider = Services(static options =>
        {
            options.LoopCount = -5;
            options.Backlog = -6;
        });

        var exception = Assert.Throws<OptionsValidationException>(() => ReadOptions(provider));

        Assert.Equal(2, exception.Failures.Count());
    }

    [Theory, MemberData(nameof(InRange))]
    public async Task Values_at_the_edges_are_accepted(string edge, Action<EvioTransportOptions> configure)
    {
        await using var provider = Services(configure);

        Assert.True(Record.Exception(() => ReadOptions(provider)) is null, edge);
    }

    [Fact]
    public void The_defaults_are_the_documented_ones()
    {
        var options = new EvioTransportOptions();

        Assert.Equal(-1, options.LoopCount);
        Assert.Equal(LoadBalance.LeastConnections, options.LoadBalance);
        Assert.Equal(LoopScheduling.Adaptive, options.Scheduling);
        Assert.Equal(64, options.MaxBlockedThreads);
        Assert.Equal(512, options.Backlog);
        Assert.True(options.NoDelay);
        Assert.Equal(1024 * 1024, options.MaxReadBufferSize);
        Assert.Equal(64 * 1024, options.MaxWriteBufferSize);
        Assert.Equal(Timeout.InfiniteTimeSpan, options.ConnectTimeout);
        Assert.False(options.SharePort);
        Assert.Null(options.UnixSocketMode);
    }

    [Fact]
    public async Task Adding_the_transport_twice_makes_one_factory_with_both_configurations()
    {
        await using var provider = new ServiceCollection()
            .AddLogging()
            .AddEvioTransport(static options => options.LoopCount = 3)
            .AddEvioTransport(static options => options.Backlog = 77)
            .BuildServiceProvider();

        var factory = Assert.Single(provider.GetServices<IConnectionListenerFactory>());
        Assert.Same(factory, provider.GetRequiredService<EvioTransportFactory>());
        var options = ReadOptions(provider);
        Assert.Equal(3, options.LoopCount);
        Assert.Equal(77, options.Backlog);
    }

    private static EvioTransportOptions ReadOptions(ServiceProvider provider) =>
        provider.GetRequiredService<IOptions<EvioTransportOptions>>().Value;

    private static ServiceProvider Services(Action<EvioTransportOptions> configure) =>
        new ServiceCollection().AddLogging().AddEvioTransport(configure).BuildServiceProvider();
}
