using System.Net.Sockets;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Accepting: who gets a connection, and what happens to those that fail.</summary>
public sealed class AcceptTests
{
    public static TheoryData<string> Schemes => Site.Schemes;

    public static TheoryData<string> UnixSchemes => Site.UnixSchemes;

    public static TheoryData<string, LoadBalance> ExactBalances
    {
        get
        {
            var cases = new TheoryData<string, LoadBalance>();
            foreach (string scheme in Site.Schemes)
            {
                cases.Add(scheme, LoadBalance.RoundRobin);
                cases.Add(scheme, LoadBalance.LeastConnections);
            }

            return cases;
        }
    }

    /// <summary>Nothing accepts on a loop there: a connection waits in the backlog unless some loop has room for it.</summary>
    [Theory]
    [InlineData(LoadBalance.Random)]
    [InlineData(LoadBalance.RoundRobin)]
    [InlineData(LoadBalance.LeastConnections)]
    public async Task ALoop_ThatIsHeldIsGivenNoMoreConnectionsThanTheBacklogInTheFallback(LoadBalance balance)
    {
        var backlog = new StreamListenerOptions().Backlog;
        var count = (2 * backlog) + 100;
        await using var site = new Site("unix-net");
        var opened = new Counter();
        var server = await site.StartAsync(
            new Events
            {
                NumLoops = 2,
                LoadBalance = balance,
                Opened = (_, ref _) =>
                {
                    opened.Add();
                    return EvioAction.None;
                },
            },
            LoopScheduling.Inline);
        using (new Support.BusyLoop(server.Loops[1]))
        {
            for (var i = 1; i <= count; i++)
            {
                await site.ConnectAsync();
                if (i % 100 == 0)
                {
                    // Clients must not run ahead of the accepts by more than the kernel's backlog.
                    Support.Waiting.Until(() => server.Loops.Sum(static loop => loop.ConnectionCount) == i);
                }
            }

            await opened.ReachesAsync(count - backlog);
            Assert.Equal(backlog, server.Loops[1].ConnectionCount);
        }

        await opened.ReachesAsync(count);
    }

    [Theory]
    [MemberData(nameof(ExactBalances))]
    public async Task Balance_IsExactAlthoughOneLoopIsBusy(string scheme, LoadBalance balance)
    {
        const int Loops = 4;
        const int Connections = 40;
        await using var site = new Site(scheme);
        var opened = new Counter();
        using var busy = new ManualResetEventSlim();
        var blocked = new Counter();
        var server = await site.StartAsync(new Events
        {
            NumLoops = Loops,
            LoadBalance = balance,
            Opened = (_, ref _) =>
            {
                opened.Add();
                return EvioAction.None;
            },
            Data = (_, _) =>
            {
                blocked.Add();
                busy.Wait(Site.Limit);
                return EvioAction.None;
            },
        });
        var first = await site.ConnectAsync();
        await first.WriteAsync("x");
        await blocked.ReachesAsync(1);

        // The dials succeed all the same: the backlog takes them where the busy loop would have to accept.
        for (var i = 1; i < Connections; i++)
        {
            await site.ConnectAsync();
        }

        // Nor does a loop spin because of a connection that is another's.
        LoopThread.AssertAllIdle();

        busy.Set();
        await opened.ReachesAsync(Connections);
        Assert.All(server.Loops, static loop => Assert.Equal(Connections / Loops, loop.ConnectionCount));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task LeastConnections_FillsTheGaps(string scheme)
    {
        await using var site = new Site(scheme);
        var opened = new Counter();
        var closed = new Counter();
        var server = await site.StartAsync(new Events
        {
            NumLoops = 2,
            LoadBalance = LoadBalance.LeastConnections,
            Opened = (connection, ref _) =>
            {
                connection.Write([(byte)connection.Loop.Index]);
                opened.Add();
                return EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
        });
        var onFirstLoop = new List<Client>();
        for (var i = 0; i < 8; i++)
        {
            var client = await site.ConnectAsync();
            if ((await client.ReadAsync(1))[0] == 0)
            {
                onFirstLoop.Add(client);
            }
        }

        Assert.Equal(4, onFirstLoop.Count);
        onFirstLoop.ForEach(static client => client.Dispose());
        await closed.ReachesAsync(4);
        for (var i = 0; i < 4; i++)
        {
            Assert.Equal(0, (await (await site.ConnectAsync()).ReadAsync(1))[0]);
        }

        Assert.All(server.Loops, static loop => Assert.Equal(4, loop.ConnectionCount));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ResetBeforeTheAccept_HurtsNobodyElse(string scheme)
    {
        await using var site = new Site(scheme);
        var blocked = new Counter();
        using var busy = new ManualResetEventSlim();
        var server = await site.StartAsync(new Events
        {
            Data = (connection, input) =>
            {
                if (input[0] == (byte)'!')
                {
                    blocked.Add();
                    busy.Wait(Site.Limit);
                }

                connection.Write(input);
                return EvioAction.None;
            },
        });
        using var good = await site.ConnectAsync();
        var echo = good.ExpectEchoAsync("!");
        await blocked.ReachesAsync(1);

        // The only loop stands still: none of these can be opened before it is reset.
        for (var i = 0; i < 50; i++)
        {
            (await site.ConnectAsync()).Reset();
        }

        busy.Set();
        await echo;
        using var next = await site.ConnectAsync();
        await next.ExpectEchoAsync("x");
        await server.StopAsync().Within();
        Assert.Equal(0, server.Loops[0].ConnectionCount);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ResetBetweenTheAcceptAndTheRegistration_HurtsNobodyElse(string scheme)
    {
        await using var site = new Site(scheme);
        var opened = new Counter();
        var closed = new Counter();
        using var busy = new ManualResetEventSlim();
        var server = await site.StartAsync(new Events
        {
            NumLoops = 2,
            LoadBalance = LoadBalance.RoundRobin,
            Opened = (_, ref _) =>
            {
                opened.Add();
                return EvioAction.None;
            },
            Data = static (connection, input) =>
            {
                connection.Write(input);
                return EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
        });
        using var good = await site.ConnectAsync();
        await good.ExpectEchoAsync("1");

        // The good one has the first turn. Whatever is the second loop's from now on is accepted, and waits to be registered.
        Assert.True(server.Loops[1].TryPost(_ => busy.Wait(Site.Limit), null));
        var clients = new List<Client>();
        for (var i = 0; i < 40; i++)
        {
            clients.Add(await site.ConnectAsync());
        }

        Support.Waiting.Until(() => server.Loops[1].ConnectionCount > 1);
        clients.ForEach(static client => client.Reset());
        busy.Set();

        for (var i = 0; i < 4; i++)
        {
            using var next = await site.ConnectAsync();
            await next.ExpectEchoAsync("x");
        }

        await good.ExpectEchoAsync("2");
        await server.StopAsync().Within();
        Assert.InRange(opened.Value, 5, 45);
        Assert.Equal(opened.Value, closed.Value);
        Assert.All(server.Loops, static loop => Assert.Equal(0, loop.ConnectionCount));
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ConnectionsInTheBacklog_AreOpenedBeforeTheStop(string scheme)
    {
        const int Waiting = 20;
        await using var site = new Site(scheme);
        var opened = new Counter();
        var closed = new Counter();
        using var busy = new ManualResetEventSlim();
        var blocked = new Counter();
        var server = await site.StartAsync(new Events
        {
            Opened = (connection, ref _) =>
            {
                connection.Write("hello"u8);
                opened.Add();
                return EvioAction.None;
            },
            Data = (_, _) =>
            {
                blocked.Add();
                busy.Wait(Site.Limit);
                return EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
        });
        var first = await site.ConnectAsync();
        await first.WriteAsync("x");
        await blocked.ReachesAsync(1);
        var clients = await Task.WhenAll(Enumerable.Range(0, Waiting).Select(_ => site.ConnectAsync()));

        var stopped = server.StopAsync();
        busy.Set();

        foreach (var client in clients)
        {
            await client.ExpectToEndAsync("hello");
        }

        await stopped.Within();
        Assert.Equal(Waiting + 1, opened.Value);
        Assert.Equal(Waiting + 1, closed.Value);
    }

    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task SocketFile_IsRemovedAtTheEnd(string scheme)
    {
        await using var site = new Site(scheme);
        var server = await site.StartAsync(new Events());
        Assert.True(File.Exists(site.Path));

        await server.StopAsync().Within();

        Assert.False(File.Exists(site.Path));
    }

    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task StaleSocketFile_IsReplaced(string scheme)
    {
        await using var site = new Site(scheme);
        var left = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        left.Bind(new UnixDomainSocketEndPoint(site.Path + ".moved"));
        File.Move(site.Path + ".moved", site.Path);
        left.Dispose();
        Assert.True(File.Exists(site.Path));

        await site.StartAsync(EvioTests.EchoEvents());

        using var client = await site.ConnectAsync();
        await client.ExpectEchoAsync("x");
    }

    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task OtherFiles_AreRefusedAndLeft(string scheme)
    {
        await using var site = new Site(scheme);
        Directory.CreateDirectory(site.Path);
        await AssertRefusedAsync();
        Directory.Delete(site.Path);

        await File.WriteAllTextAsync(site.Path, "precious", TestContext.Current.CancellationToken);
        await AssertRefusedAsync();
        Assert.Equal("precious", await File.ReadAllTextAsync(site.Path, TestContext.Current.CancellationToken));

        async Task AssertRefusedAsync()
        {
            var exception = await Assert.ThrowsAsync<SocketException>(() => EvioServer.StartAsync(new Events(), site.Address));
            Assert.Equal(SocketError.AddressAlreadyInUse, exception.SocketErrorCode);
            Assert.Contains(site.Path, exception.Message, StringComparison.Ordinal);
            Assert.Contains("no socket", exception.Message, StringComparison.Ordinal);
            Assert.True(Path.Exists(site.Path));
        }
    }

    [Theory]
    [InlineData("unix", "unix-net")]
    [InlineData("unix-net", "unix")]
    [InlineData("unix-net", "unix-net")]
    public async Task SocketFileOfALivingServer_IsRefusedAndLeft(string living, string second)
    {
        await using var site = new Site(living);
        await site.StartAsync(EvioTests.EchoEvents());

        var exception = await Assert.ThrowsAsync<SocketException>(() => EvioServer.StartAsync(new Events(), $"{second}://{site.Path}"));

        Assert.Equal(SocketError.AddressAlreadyInUse, exception.SocketErrorCode);
        using var client = await site.ConnectAsync();
        await client.ExpectEchoAsync("x");
    }

    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task DirectoryThatDoesNotExist_IsRefusedByName(string scheme)
    {
        await using var site = new Site(scheme);

        var exception = await Assert.ThrowsAsync<SocketException>(() => EvioServer.StartAsync(new Events(), $"{site.Address}/in/none"));

        Assert.Contains($"{site.Path}/in/none", exception.Message, StringComparison.Ordinal);
        Assert.Contains("directory", exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task DirectoryThatVanished_DoesNotHinderTheStop(string scheme)
    {
        await using var site = new Site(scheme);
        var directory = Directory.CreateTempSubdirectory("evio");
        var server = await EvioServer.StartAsync(new Events(), $"{scheme}://{directory.FullName}/socket");

        directory.Delete(recursive: true);

        await server.StopAsync().Within();
    }
}
