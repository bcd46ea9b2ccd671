using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Evio.Transport.Tests;

/// <summary>The section "Evio" of a configuration: what it refuses, and that every option has an effect when it is set there, in every mode.</summary>
public sealed class ConfiguredOptionTests
{
    public static TheoryData<string, string> Refused => new()
    {
        { nameof(EvioTransportOptions.LoopCount), "many" },
        { nameof(EvioTransportOptions.LoopCount), "1.5" },
        { nameof(EvioTransportOptions.LoopCount), "99999999999" },
        { nameof(EvioTransportOptions.LoopCount), "1025" },
        { nameof(EvioTransportOptions.LoadBalance), "Fair" },
        { nameof(EvioTransportOptions.LoadBalance), "7" },
        { nameof(EvioTransportOptions.Scheduling), "Automatic" },
        { nameof(EvioTransportOptions.Scheduling), "-1" },
        { nameof(EvioTransportOptions.MaxBlockedThreads), "many" },
        { nameof(EvioTransportOptions.MaxBlockedThreads), "0" },
        { nameof(EvioTransportOptions.LoopAffinity), "0,1" },
        { nameof(EvioTransportOptions.LoopAffinity), "3" },
        { nameof(EvioTransportOptions.LoopAffinity) + ":0", "first" },
        { nameof(EvioTransportOptions.LoopAffinity) + ":0", "-1" },
        { nameof(EvioTransportOptions.Backlog), "x" },
        { nameof(EvioTransportOptions.Backlog), "0" },
        { nameof(EvioTransportOptions.NoDelay), "perhaps" },
        { nameof(EvioTransportOptions.NoDelay), "1" },
        { nameof(EvioTransportOptions.MaxReadBufferSize), "1 MiB" },
        { nameof(EvioTransportOptions.MaxReadBufferSize), "-1" },
        { nameof(EvioTransportOptions.MaxWriteBufferSize), "1e6" },
        { nameof(EvioTransportOptions.MaxWriteBufferSize), "-1" },
        { nameof(EvioTransportOptions.ConnectTimeout), "soon" },
        { nameof(EvioTransportOptions.ConnectTimeout), "00:00:00" },
        { nameof(EvioTransportOptions.SharePort), "yes" },
        { nameof(EvioTransportOptions.UnixSocketMode), "0668" },
        { nameof(EvioTransportOptions.UnixSocketMode), "1777" },
        { nameof(EvioTransportOptions.UnixSocketMode), "-1" },
        { nameof(EvioTransportOptions.UnixSocketMode), "rw" },
        { "LoopCuont", "2" },
    };

    [Theory, MemberData(nameof(Refused))]
    public async Task Nonsense_stops_the_start_by_name(string option, string value)
    {
        var exception = await Assert.ThrowsAnyAsync<Exception>(async () =>
        {
            await using var application = Build([(option, value)]);
            await application.StartAsync();
        }).OrTimeout();

        // Both come from the options, not from whoever stumbled over them: one from reading them, the other from their validation.
        Assert.True(exception is InvalidOperationException or OptionsValidationException, exception.ToString());
        Assert.Contains(option.Split(':')[0], exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task LoopAffinity_binds_the_loops_threads()
    {
        const string Key = "Cpus_allowed_list:";
        var permitted = File.ReadLines("/proc/self/status").Single(static line => line.StartsWith(Key, StringComparison.Ordinal))[Key.Length..].Trim();
        var last = permitted[(permitted.LastIndexOfAny([',', '-']) + 1)..];
        await using var site = await Site.StartAsync(("LoopCount", "2"), ("LoopAffinity:0", last));

        foreach (var loop in site.Loops)
        {
            var bound = new TaskCompletionSource<string[]>(TaskCreationOptions.RunContinuationsAsynchronously);
            Assert.True(loop.TryPost(_ => bound.SetResult(File.ReadAllLines("/proc/thread-self/status")), null));
            Assert.Contains($"{Key}\t{last}", await bound.Task.OrTimeout());
        }
    }

    [Fact]
    public async Task A_processor_that_does_not_exist_stops_the_start_by_name()
    {
        await using var application = Build([("LoopAffinity:0", "1023")]);

        var exception = await Assert.ThrowsAnyAsync<ArgumentException>(() => application.StartAsync().OrTimeout());

        Assert.Contains("processor 1023", exception.Message, StringComparison.Ordinal);
        Assert.Contains("LoopAffinity", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_the_section_the_defaults_hold()
    {
        var expected = new EvioTransportOptions();
        await using var application = Build([]);

        Assert.All(
            typeof(EvioTransportOptions).GetProperties(),
            property => Assert.Equal(property.GetValue(expected), property.GetValue(Options(application))));
    }

    [Fact]
    public async Task Code_wins_over_configuration_wherever_it_stands()
    {
        await using var application = Build(
            [("LoopCount", "3"), ("Backlog", "44"), ("Scheduling", "Inline")],
            builder =>
            {
                builder.Services.Configure<EvioTransportOptions>(static options => options.LoopCount = 2);
                builder.WebHost.UseEvioTransport();
                builder.WebHost.UseEvioTransport(static options => options.Backlog = 55);
            });

        var options = Options(application);

        Assert.Equal((2, 55, LoopScheduling.Inline), (options.LoopCount, options.Backlog, options.Scheduling));
    }

    [Fact]
    public async Task Names_and_choices_are_read_in_any_case()
    {
        await using var application = Build([("loadbalance", "roundrobin"), ("SCHEDULING", "INLINE")]);

        var options = Options(application);

        Assert.Equal((LoadBalance.RoundRobin, LoopScheduling.Inline), (options.LoadBalance, options.Scheduling));
    }

    [Theory]
    [InlineData("0600", 0x180)]
    [InlineData("660", 0x1B0)]
    [InlineData("0", 0)]
    [InlineData("777", 0x1FF)]
    public async Task A_mode_is_read_as_octal_digits(string text, int mode)
    {
        await using var application = Build([("UnixSocketMode", text)]);

        Assert.Equal((UnixFileMode)mode, Options(application).UnixSocketMode);
    }

    [Fact]
    public void Every_option_has_its_test_below()
    {
        var methods = typeof(ConfiguredOptionTests).GetMethods().Select(static method => method.Name);

        Assert.All(
            typeof(EvioTransportOptions).GetProperties(),
            property => Assert.Contains(methods, method => method.StartsWith($"{property.Name}_", StringComparison.Ordinal)));
    }

    [Theory, EvioTransports]
    public async Task LoopCount_is_the_number_of_threads(TransportKind kind)
    {
        await using var site = await Site.StartAsync(kind, ("LoopCount", "3"));
        var threads = new int[3];
        using var all = new CountdownEvent(3);
        for (var i = 0; i < site.Loops.Count; i++)
        {
            var index = i;
            site.Loops[i].TryPost(
                _ =>
                {
                    threads[index] = Environment.CurrentManagedThreadId;
                    all.Signal();
                }, null);
        }

        Assert.True(all.Wait(TestTimeouts.Default));
        Assert.Equal(3, site.Loops.Count);
        Assert.Equal(3, threads.Distinct().Count());
    }

    [Theory, EvioTransports]
    public async Task LoadBalance_chooses_the_loops(TransportKind kind)
    {
        await using var site = await Site.StartAsync(kind, ("LoopCount", "2"), ("LoadBalance", "RoundRobin"));
        await using var first = await site.OpenAsync();
        Assert.Equal([1, 0], site.Counts.OrderDescending());
        await using var second = await site.OpenAsync();
        Assert.Equal([1, 1], site.Counts);
        await using var third = await site.OpenAsync();
        await using var fourth = await site.OpenAsync();

        Assert.Equal([2, 2], site.Counts);
    }

    /// <summary>Also for the first request, which may be there when the server begins the connection, on the thread pool.</summary>
    [Theory]
    [InlineData("Inline", true, false)]
    [InlineData("Inline", true, true)]
    [InlineData("Adaptive", true, false)]
    [InlineData("Adaptive", true, true)]
    [InlineData("ThreadPool", false, false)]
    [InlineData("ThreadPool", false, true)]
    public async Task Scheduling_chooses_the_thread_of_the_application(string scheduling, bool onLoop, bool isThereBefore)
    {
        await using var site = await Site.StartAsync(("Scheduling", scheduling), ("LoopCount", "1"));
        await using var pair = await site.OpenAsync();
        Task<(bool OnLoop, bool OnPool)> ran;
        if (isThereBefore)
        {
            await pair.Client.SendAllAsync("x").OrTimeout();

            // Events come before posted calls: after one the loop knows of the input.
            var noted = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Assert.True(site.Loops[0].TryPost(_ => noted.SetResult(), null));
            await noted.Task.OrTimeout();
            ran = Task.Run(ReadAsync);
        }
        else
        {
            ran = ReadAsync();
            await pair.Client.SendAllAsync("x").OrTimeout();
        }

        Assert.Equal((onLoop, !onLoop), await ran.OrTimeout());

        async Task<(bool OnLoop, bool OnPool)> ReadAsync()
        {
            await pair.Input.ReadAsync().ConfigureAwait(false);

            // Not whether it has the turn, which it may have lost at once on a busy machine.
            return (Thread.CurrentThread.Name?.StartsWith("Evio loop", StringComparison.Ordinal) == true, Thread.CurrentThread.IsThreadPoolThread);
        }
    }

    [Fact]
    public async Task MaxBlockedThreads_is_how_many_block_before_the_thread_pool_helps()
    {
        await using var site = await Site.StartAsync(("Scheduling", "Adaptive"), ("MaxBlockedThreads", "1"), ("LoopCount", "1"));
        await using var first = await site.OpenAsync();
        await using var second = await site.OpenAsync();
        using var mayReturn = new ManualResetEventSlim();
        var blocked = BlockAsync(first);
        await first.Client.SendAllAsync("x").OrTimeout();
        Assert.False(await blocked.Began.OrTimeout());

        // The only thread that may be late is. It takes the monitor a moment to notice, and the loop runs what comes in it.
        await Eventually.HoldsAsync(async () =>
        {
            var ran = RunAsync();
            await second.Client.SendAllAsync("y").OrTimeout();
            return await ran.OrTimeout();
        });

        mayReturn.Set();
        await blocked.Ended.OrTimeout();

        async Task<bool> RunAsync()
        {
            var result = await second.Input.ReadAsync().ConfigureAwait(false);
            second.Input.AdvanceTo(result.Buffer.End);
            return Thread.CurrentThread.IsThreadPoolThread;
        }

        (Task<bool> Began, Task Ended) BlockAsync(ConnectedPair pair)
        {
            var began = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
            return (began.Task, ReadAndBlockAsync());

            async Task ReadAndBlockAsync()
            {
                await pair.Input.ReadAsync().ConfigureAwait(false);
                began.SetResult(Thread.CurrentThread.IsThreadPoolThread);
                Assert.True(mayReturn.Wait(TestTimeouts.Default));
            }
        }
    }

    [Theory, EvioTransports(7, 300)]
    public async Task Backlog_is_that_of_every_listening_socket(TransportKind kind, int expected)
    {
        await using var site = await Site.StartAsync(kind, ("LoopCount", "2"), ("Backlog", expected.ToString(CultureInfo.InvariantCulture)));

        Assert.Equal([expected, expected], ListeningSockets.BacklogsOf(((IPEndPoint)site.Listener.EndPoint).Port));
    }

    [Theory, EvioTransports("true", "False")]
    public async Task NoDelay_is_set_on_accepted_and_outbound_sockets(TransportKind kind, string noDelay)
    {
        await using var site = await Site.StartAsync(kind, ("NoDelay", noDelay));
        var accepting = site.Listener.AcceptAsync();

        await using var outbound = await site.Factory.ConnectAsync(site.Listener.EndPoint).OrTimeout();
        await using var accepted = (await accepting.OrTimeout())!;

        var expected = noDelay == "true";
        Assert.Equal((expected, expected), (SocketOf(outbound).NoDelay, SocketOf(accepted).NoDelay));
    }

    [Theory, EvioTransports]
    public async Task MaxReadBufferSize_limits_what_is_read_ahead(TransportKind kind)
    {
        await using var site = await Site.StartAsync(kind, ("MaxReadBufferSize", "10000"));
        await using var pair = await site.OpenAsync();
        var socket = SocketOf(pair.Connection);

        // After a FIN the loop reads ahead to find the end of the input, but only so far.
        await pair.Client.SendAllAsync(TestData.Bytes(100_000)).OrTimeout();
        pair.Client.Shutdown(SocketShutdown.Send);
        await Eventually.HoldsAsync(() => socket.Available < 100_000);
        var left = await Eventually.SettlesAsync(() => socket.Available);

        Assert.InRange(100_000 - left, 10_000, 30_000);
        Assert.False(pair.Connection.ConnectionClosed.IsCancellationRequested);
    }

    [Theory, EvioTransports("0", "1000000")]
    public async Task MaxReadBufferSize_lets_that_much_be_read_ahead(TransportKind kind, string size)
    {
        await using var site = await Site.StartAsync(kind, ("MaxReadBufferSize", size));
        await using var pair = await site.OpenAsync();

        await pair.Client.SendAllAsync(TestData.Bytes(100_000)).OrTimeout();
        pair.Client.Shutdown(SocketShutdown.Send);

        await pair.Connection.ConnectionClosed.WhenCancelled();
    }

    [Theory, EvioTransports("1000", "50000000", "0")]
    public async Task MaxWriteBufferSize_is_where_a_flush_waits(TransportKind kind, string size)
    {
        var sent = TestData.Bytes(16_000_000);
        await using var site = await Site.StartAsync(kind, ("MaxWriteBufferSize", size));
        await using var pair = await site.OpenAsync();

        // More than the kernel takes for a client that does not read.
        var flush = pair.Output.WriteAsync(sent).AsTask();

        Assert.Equal(size != "1000", flush.IsCompleted);
        TestData.AssertSame(sent, await pair.Client.ReceiveExactlyAsync(sent.Length).OrTimeout());
        await flush.OrTimeout();
    }

    [Theory, EvioTransports]
    public async Task ConnectTimeout_ends_an_attempt(TransportKind kind)
    {
        using var silent = new SilentListener();
        await using var site = await Site.StartAsync(kind, ("ConnectTimeout", "00:00:00.050"));

        var exception = await Assert.ThrowsAsync<SocketException>(() => site.Factory.ConnectAsync(silent.EndPoint).OrTimeout());

        Assert.Equal(SocketError.TimedOut, exception.SocketErrorCode);
        Assert.Contains("00:00:00.05", exception.Message, StringComparison.Ordinal);
    }

    [Theory, EvioTransports]
    public async Task SharePort_lets_others_in(TransportKind kind)
    {
        await using var first = await Site.StartAsync(kind, ("SharePort", "true"));
        await using var second = Build([InMode(kind), ("SharePort", "true")]);

        await using var listener = await Factory(second).BindAsync(first.Listener.EndPoint).OrTimeout();

        Assert.Equal(first.Listener.EndPoint, listener.EndPoint);
    }

    [Theory, EvioTransports("true", "false")]
    public async Task SharePort_off_takes_no_port_that_another_has(TransportKind kind, string othersShare)
    {
        await using var first = await Site.StartAsync(kind, ("SharePort", othersShare));
        await using var second = Build([InMode(kind), ("SharePort", "false")]);

        await Assert.ThrowsAsync<AddressInUseException>(async () => await Factory(second).BindAsync(first.Listener.EndPoint));
    }

    [Theory, EvioTransports]
    public async Task UnixSocketMode_is_the_mode_of_the_file(TransportKind kind)
    {
        using var path = new UnixSocketPath();
        await using var application = Build([InMode(kind), ("UnixSocketMode", "0462")]);

        await using var listener = await Factory(application).BindAsync(path.EndPoint).OrTimeout();

        Assert.Equal("462", Convert.ToString((int)new FileInfo(path.Path).UnixFileMode, 8));
    }

    private static (string Option, string Value) InMode(TransportKind kind) => (nameof(EvioTransportOptions.Scheduling), kind.Scheduling().ToString());

    private static Socket SocketOf(ConnectionContext connection) => connection.Features.Get<IConnectionSocketFeature>()!.Socket;

    private static EvioTransportOptions Options(WebApplication application) =>
        application.Services.GetRequiredService<IOptions<EvioTransportOptions>>().Value;

    private static EvioTransportFactory Factory(WebApplication application) => application.Services.GetRequiredService<EvioTransportFactory>();

    private static WebApplication Build((string Option, string Value)[] section, Action<WebApplicationBuilder>? use = null)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.Configuration.AddInMemoryCollection(section.Select(static entry => KeyValuePair.Create($"Evio:{entry.Option}", (string?)entry.Value)));
        builder.WebHost.UseKestrelCore().UseUrls("http://127.0.0.1:0");
        if (use is null)
        {
            builder.WebHost.UseEvioTransport();
        }
        else
        {
            use(builder);
        }

        return builder.Build();
    }

    /// <summary>A listener of a transport that is set up by configuration alone.</summary>
    private sealed class Site : IAsyncDisposable
    {
        private readonly WebApplication _application;

        private Site(WebApplication application, IConnectionListener listener)
        {
            _application = application;
            Factory = ConfiguredOptionTests.Factory(application);
            Listener = listener;
        }

        public EvioTransportFactory Factory { get; }

        public IConnectionListener Listener { get; }

        public IReadOnlyList<EventLoop> Loops => Factory.Loops;

        public int[] Counts => [.. Loops.Select(static loop => loop.ConnectionCount)];

        public static Task<Site> StartAsync(TransportKind kind, params (string Option, string Value)[] section) => StartAsync([InMode(kind), .. section]);

        public static async Task<Site> StartAsync(params (string Option, string Value)[] section)
        {
            var application = Build(section);
            return new Site(application, await ConfiguredOptionTests.Factory(application).BindAsync(new IPEndPoint(IPAddress.Loopback, 0)).OrTimeout());
        }

        public Task<ConnectedPair> OpenAsync() => ConnectedPair.ThroughAsync(Listener);

        public async ValueTask DisposeAsync()
        {
            await Listener.DisposeAsync().OrTimeout();
            await _application.DisposeAsync().OrTimeout();
        }
    }

    /// <summary>This process's listening TCP sockets, which the transport shows to nobody.</summary>
    private static class ListeningSockets
    {
        private const int OffsetOfMaxAckBacklog = 28;

        /// <summary>The queue lengths given to listen(2): the kernel tells them in <c>tcpi_sacked</c> of a listening socket (tcp(7), <c>TCP_INFO</c>).</summary>
        public static IEnumerable<int> BacklogsOf(int port)
        {
            var inodes = InodesOf(port);
            var info = new byte[OffsetOfMaxAckBacklog + sizeof(int)];
            foreach (var entry in new DirectoryInfo("/proc/self/fd").EnumerateFileSystemInfos())
            {
                if (entry.LinkTarget is { } target && inodes.Contains(target))
                {
                    using var handle = new SafeSocketHandle(int.Parse(entry.Name, CultureInfo.InvariantCulture), ownsHandle: false);
                    using var socket = new Socket(handle);
                    socket.ReadTcpInfo(info);
                    yield return BitConverter.ToInt32(info, OffsetOfMaxAckBacklog);
                }
            }
        }

        /// <summary>The sockets that listen at a loopback port, as /proc/self/fd names them (proc_net_tcp(5)).</summary>
        private static HashSet<string> InodesOf(int port)
        {
            const int LocalAddress = 1, State = 3, Inode = 9;
            var address = $"0100007F:{port:X4}";
            return [.. File.ReadLines("/proc/self/net/tcp")
                .Select(static line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
                .Where(fields => fields[LocalAddress] == address && fields[State] == "0A")
                .Select(static fields => $"socket:[{fields[Inode]}]")];
        }
    }
}
