using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>How connections begin and end, and what a callback that throws does.</summary>
public sealed class LifeTests
{
    public static TheoryData<string> Schemes => Site.Schemes;

    public static TheoryData<string, string> SchemesAndConnectionCallbacks => Combine("Opened", "Data", "PreWrite");

    public static TheoryData<string, string> SchemesAndServerCallbacks => Combine("Serving", "Tick");

    public static TheoryData<string, string> SchemesAndLastCallbacks => Combine("Closed", "Detached", "Write");

    public static TheoryData<string, EvioAction> SchemesAndEnds
    {
        get
        {
            var cases = new TheoryData<string, EvioAction>();
            foreach (string scheme in Site.Schemes)
            {
                cases.Add(scheme, EvioAction.Close);
                cases.Add(scheme, EvioAction.Detach);
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Closed_ComesOnceForEachOpened(string scheme)
    {
        const int Connections = 60;
        await using var site = new Site(scheme);
        var opened = new Counter();
        var closed = new Counter();
        var closes = new ConcurrentDictionary<Connection, int>();
        var misplaced = new Counter();
        var server = await site.StartAsync(new Events
        {
            NumLoops = 3,
            LoadBalance = LoadBalance.RoundRobin,
            Opened = (connection, ref _) =>
            {
                Note(connection.Loop.IsCurrent && closes.TryAdd(connection, 0));
                opened.Add();
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                Note(connection.Loop.IsCurrent && closes.GetValueOrDefault(connection, 1) == 0);
                connection.Write(input);
                switch (input[0])
                {
                    case (byte)'a':
                        return EvioAction.Close;
                    case (byte)'b':
                        connection.Close();
                        connection.Close();
                        return EvioAction.None;
                    case (byte)'c':
                        throw new InvalidOperationException();
                    default:
                        return EvioAction.None;
                }
            },
            Closed = (connection, _) =>
            {
                Note(connection.Loop.IsCurrent && closes.TryUpdate(connection, 1, 0));
                closed.Add();
                return EvioAction.None;
            },
        });

        // Every sixth stays open until the server stops.
        for (var i = 0; i < Connections; i++)
        {
            var client = await site.ConnectAsync();
            switch (i % 6)
            {
                case < 3:
                    await client.WriteAsync(new[] { (byte)('a' + (i % 6)) });
                    break;
                case 3:
                    client.Dispose();
                    break;
                case 4:
                    client.Reset();
                    break;
            }
        }

        await opened.ReachesAsync(Connections);
        await closed.ReachesAsync(Connections / 6 * 5);
        await server.StopAsync().Within();

        Assert.Equal(Connections, closes.Count);
        Assert.All(closes.Values, static count => Assert.Equal(1, count));
        Assert.Equal(0, misplaced.Value);
        Assert.All(server.Loops, static loop => Assert.Equal(0, loop.ConnectionCount));

        void Note(bool inPlace)
        {
            if (!inPlace)
            {
                misplaced.Add();
            }
        }
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task PreWrite_ComesJustBeforeOutputIsSentAndMayAddToIt(string scheme)
    {
        await using var site = new Site(scheme);
        var calls = 0;
        var server = await site.StartAsync(new Events
        {
            PreWrite = connection =>
            {
                connection.Write(connection.Loop.IsCurrent && connection.BytesSent == 3 * calls ? "+"u8 : "?"u8);
                calls++;
            },
            Data = (connection, input) =>
            {
                // Nothing is sent before the callback has returned, and nothing at all for the last one.
                if (input[0] != (byte)'.')
                {
                    connection.Write(input);
                    connection.Write("a"u8);
                }

                return input[0] == (byte)'.' ? EvioAction.Close : EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        await client.WriteAsync("1");
        await client.ExpectAsync("1a+");
        await client.WriteAsync("2");
        await client.ExpectAsync("2a+");
        await client.WriteAsync(".");
        await client.ExpectToEndAsync("");

        await server.StopAsync().Within();
        Assert.Equal(2, calls);
    }

    [Theory]
    [MemberData(nameof(SchemesAndEnds))]
    public async Task Write_IsRefusedOnceTheConnectionIsClosedOrDetached(string scheme, EvioAction end)
    {
        await using var site = new Site(scheme);
        var refused = new TaskCompletionSource<InvalidOperationException>(TaskCreationOptions.RunContinuationsAsynchronously);
        var server = await site.StartAsync(new Events
        {
            Opened = (_, ref _) => end,
            Closed = (connection, _) => Refused(connection),
            Detached = (connection, socket) =>
            {
                socket.Dispose();
                return Refused(connection);
            },
        });
        using var client = await site.ConnectAsync();

        await client.ExpectToEndAsync("");
        await refused.Task.Within();
        await server.StopAsync().Within();

        EvioAction Refused(Connection connection)
        {
            refused.SetResult(Assert.Throws<InvalidOperationException>(() => connection.Write("late"u8)));
            return EvioAction.None;
        }
    }

    [Theory]
    [MemberData(nameof(SchemesAndConnectionCallbacks))]
    public async Task ExceptionOfACallback_ClosesItsConnectionOnly(string scheme, string callback)
    {
        await using var site = new Site(scheme);
        var thrown = new InvalidOperationException(callback);
        var closed = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        var opened = 0;
        await site.StartAsync(new Events
        {
            Opened = (connection, ref _) =>
            {
                // The first connection is the good one.
                connection.Context = opened++ == 0;
                ThrowFrom("Opened", connection);
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                connection.Write(input);
                ThrowFrom("Data", connection);
                return EvioAction.None;
            },
            PreWrite = connection => ThrowFrom("PreWrite", connection),
            Closed = (connection, error) =>
            {
                if (!(bool)connection.Context!)
                {
                    closed.SetResult(error);
                }

                return EvioAction.None;
            },
        });
        using var good = await site.ConnectAsync();
        await good.ExpectEchoAsync("1");
        try
        {
            using var bad = await site.ConnectAsync();
            if (callback != "Opened")
            {
                await bad.WriteAsync("x");
            }

            await bad.WaitForEndAsync();
        }
        catch (SocketException exception) when (exception.SocketErrorCode == SocketError.ConnectionReset)
        {
            // So soon that the client was still connecting.
        }

        Assert.Same(thrown, await closed.Task.Within());
        await good.ExpectEchoAsync("2");

        void ThrowFrom(string name, Connection connection)
        {
            if (name == callback && !(bool)connection.Context!)
            {
                throw thrown;
            }
        }
    }

    [Theory]
    [MemberData(nameof(SchemesAndServerCallbacks))]
    public async Task ExceptionWithoutAConnection_StopsTheServer(string scheme, string callback)
    {
        await using var site = new Site(scheme);
        var thrown = new InvalidOperationException(callback);
        var events = new Events
        {
            Serving = _ => callback == "Serving" ? throw thrown : EvioAction.None,
            Tick = (out _) => throw thrown,
        };

        var serve = site.ServeAsync(events);

        Assert.Same(thrown, await Assert.ThrowsAsync<InvalidOperationException>(() => serve.Within()));
    }

    [Theory]
    [MemberData(nameof(SchemesAndLastCallbacks))]
    public async Task ExceptionOfALastCallback_CostsNobodyElseAnything(string scheme, string callback)
    {
        const int Connections = 20;
        await using var site = new Site(scheme);
        var thrown = new InvalidOperationException(callback);
        var told = new ConcurrentQueue<(Connection Connection, Exception Exception)>();
        var server = await site.StartAsync(new Events
        {
            Data = (connection, input) =>
            {
                connection.Write(input);
                return input[0] == 'x' ? callback == "Detached" ? EvioAction.Detach : EvioAction.Close : EvioAction.None;
            },
            Closed = (connection, _) =>
            {
                if (callback == "Write")
                {
                    connection.Write("too late"u8);
                }

                throw thrown;
            },
            Detached = (_, socket) =>
            {
                socket.Dispose();
                throw thrown;
            },
            CallbackFailed = (connection, exception) =>
            {
                told.Enqueue((connection, exception));
                throw new InvalidOperationException("This one throws, too.");
            },
        });
        using var good = await site.ConnectAsync();
        for (var i = 0; i < Connections; i++)
        {
            using var bad = await site.ConnectAsync();
            await bad.WriteAsync("x");
            await bad.ExpectToEndAsync("x");
            await good.ExpectEchoAsync("1");
        }

        Support.Waiting.Until(() => told.Count == Connections);
        Assert.Equal(Connections, told.Select(static one => one.Connection).Distinct().Count());
        Assert.All(told, one => Assert.True(callback == "Write" ? one.Exception is InvalidOperationException : one.Exception == thrown));
        Support.Waiting.Until(() => server.Loops.Sum(static loop => loop.ConnectionCount) == 1);
        Assert.False(server.Completion.IsCompleted);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task ShutdownOfServing_EndsBeforeAnythingIsAccepted(string scheme)
    {
        await using var site = new Site(scheme);
        var opened = 0;
        var events = new Events
        {
            Serving = static _ => EvioAction.Shutdown,
            Opened = (_, ref _) =>
            {
                opened++;
                return EvioAction.None;
            },
        };

        await site.ServeAsync(events).Within();

        Assert.Equal(0, opened);
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task DetachWithoutReceiver_Closes(string scheme)
    {
        await using var site = new Site(scheme);
        var closed = new Counter();
        await site.StartAsync(new Events
        {
            Opened = static (connection, ref _) =>
            {
                connection.Write("last words"u8);
                return EvioAction.Detach;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
        });
        using var client = await site.ConnectAsync();

        await client.ExpectToEndAsync("last words");
        await closed.ReachesAsync(1);
    }

    /// <summary>Many detaches while input is on its way: none of it is lost, on neither side of the hand-over.</summary>
    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Detach_LosesNoInput(string scheme)
    {
        const int Length = 200_000;
        await using var site = new Site(scheme);
        var received = new ConcurrentDictionary<Connection, MemoryStream>();
        await site.StartAsync(new Events
        {
            Opened = (connection, ref _) =>
            {
                received[connection] = new MemoryStream();
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                received[connection].Write(input);
                return EvioAction.Detach;
            },
            Detached = (connection, socket) =>
            {
                _ = Task.Run(() =>
                {
                    using (socket)
                    {
                        var before = received[connection];
                        var rest = new byte[Length - before.Length];
                        for (var count = 0; count < rest.Length;)
                        {
                            count += socket.Receive(rest.AsSpan(count));
                        }

                        socket.Send((byte[])[.. before.ToArray(), .. rest]);
                        socket.Shutdown(SocketShutdown.Send);
                    }
                });
                return EvioAction.None;
            },
        });

        var seed = Payload.NewSeed();
        await Task.WhenAll(Enumerable.Range(0, 20).Select(async i =>
        {
            using var client = await site.ConnectAsync();
            var data = Payload.Random(seed + i, Length);
            var echo = client.ReadToEndAsync();
            foreach (var piece in data.Chunk(10_000))
            {
                await client.WriteAsync(piece);
            }

            Payload.AssertSame(data, await echo);
        }));
    }

    /// <summary>
    /// Connections come and go so fast that their descriptor numbers are used again at once. Each carries bytes of its own, and must never see another's.
    /// </summary>
    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task Storm_NeverMixesConnectionsUp(string scheme)
    {
        const int Workers = 8;
        const int ConnectionsPerWorker = 60;
        await using var site = new Site(scheme);
        var seed = Payload.NewSeed();
        var wrong = new Counter();
        var opened = new Counter();
        var closed = new Counter();
        var server = await site.StartAsync(new Events
        {
            NumLoops = 2,
            LoadBalance = LoadBalance.LeastConnections,
            Opened = (_, ref _) =>
            {
                opened.Add();
                return EvioAction.None;
            },
            Data = (connection, input) =>
            {
                foreach (var mark in MemoryMarshal.Cast<byte, ushort>(input[..^(input.Length % 2)]))
                {
                    connection.Context ??= mark;
                    if ((ushort)connection.Context != mark)
                    {
                        wrong.Add();
                    }
                }

                connection.Write(input);
                return input.Length % 3 == 0 ? EvioAction.Close : EvioAction.None;
            },
            Closed = (_, _) =>
            {
                closed.Add();
                return EvioAction.None;
            },
        });

        await Task.WhenAll(Enumerable.Range(0, Workers).Select(worker => Task.Run(async () =>
        {
            var random = new Random(seed + worker);
            for (var i = 0; i < ConnectionsPerWorker; i++)
            {
                using var client = await site.ConnectAsync();
                var mark = (ushort)((worker * ConnectionsPerWorker) + i + 1);
                var data = new byte[2 * random.Next(1, 2000)];
                MemoryMarshal.Cast<byte, ushort>(data.AsSpan()).Fill(mark);
                try
                {
                    await client.WriteAsync(data);
                    if (random.Next(2) == 0)
                    {
                        foreach (var echoed in MemoryMarshal.Cast<byte, ushort>(await client.ReadAsync(2)))
                        {
                            Assert.Equal(mark, echoed);
                        }
                    }
                }
                catch (IOException)
                {
                    // The server closes some of them while they send.
                }

                if (random.Next(2) == 0)
                {
                    client.Reset();
                }
            }
        })));

        await opened.ReachesAsync(Workers * ConnectionsPerWorker);
        await closed.ReachesAsync(Workers * ConnectionsPerWorker);
        await server.StopAsync().Within();
        Assert.Equal(0, wrong.Value);
        Assert.Equal(opened.Value, closed.Value);
    }

    private static TheoryData<string, string> Combine(params string[] callbacks)
    {
        var cases = new TheoryData<string, string>();
        foreach (string scheme in Site.Schemes)
        {
            foreach (var callback in callbacks)
            {
                cases.Add(scheme, callback);
            }
        }

        return cases;
    }

    [Theory]
    [MemberData(nameof(Schemes))]
    public async Task OutputKeptBeyondTheEnd_IsRefused(string scheme)
    {
        foreach (var scheduling in (LoopScheduling[])[LoopScheduling.Inline, LoopScheduling.Adaptive])
        {
            foreach (var end in (EvioAction[])[EvioAction.Close, EvioAction.Detach])
            {
                await AssertOutputIsRefusedAsync(scheme, scheduling, end);
            }
        }
    }

    private static async Task AssertOutputIsRefusedAsync(string scheme, LoopScheduling scheduling, EvioAction end)
    {
        await using var site = new Site(scheme);
        System.Buffers.IBufferWriter<byte>? kept = null;
        using var refusals = new System.Collections.Concurrent.BlockingCollection<string>();
        await site.StartAsync(
            new Events
            {
                Data = (connection, _) =>
                {
                    kept = connection.Output;
                    return end;
                },
                Closed = (connection, _) => Refuse(connection),
                Detached = (connection, socket) =>
                {
                    socket.Dispose();
                    return Refuse(connection);
                },
            },
            scheduling);
        var client = await site.ConnectAsync();

        await client.WriteAsync("x");
        await client.ExpectToEndAsync("");

        // In the last callback, and on the loop afterwards.
        for (var i = 0; i < 2; i++)
        {
            Assert.True(refusals.TryTake(out var refusal, Site.Limit));
            Assert.Equal("The connection is closed or detached, and can no longer be written to.", refusal);
        }

        EvioAction Refuse(Connection connection)
        {
            Try();
            Assert.True(connection.Loop.TryPost(_ => Try(), null));
            return EvioAction.None;
        }

        void Try() => refusals.Add(Record.Exception(() => kept!.GetMemory(1)) is InvalidOperationException exception ? exception.Message : "taken");
    }
}
