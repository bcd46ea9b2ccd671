using System.Net.Sockets;
using System.Reflection;
using Evio.Transport.Native;
using Evio.Transport.Testing;

namespace Evio.Transport.Faults.Tests;

/// <summary>Walks the table of docs/faults.md: every row, every error, on every server that it concerns, and for the first as well as for later calls.</summary>
public sealed class FaultTableTests(FaultedServer server) : IClassFixture<FaultedServer>
{
    private const int EpollAdd = 1;
    private const int EpollDelete = 2;
    private const int OptionError = 4;
    private const int ShutdownSend = 1;
    private const int FamilyUnspecified = 0;

    private const string Unnoticed = FaultRow.Unnoticed;
    private const string Pauses = "accepting pauses for 100 ms";
    private const string EndsConnection = FaultRow.EndsConnection;
    private const string FailsStart = "the start fails";
    private const string FailsAttempt = "the attempt fails";
    private const string LosesReply = "that reply is lost";

    /// <summary>A fault is repeated at most this often where nothing is to be noticed of it.</summary>
    private const int Repeated = 3;

    /// <summary>More calls of a kind are not made for one command.</summary>
    private const int MaxCallsOfACommand = 50;

    public static TheoryData<string> Rows => [.. FaultTable.Rows.Select(static row => row.ToString())];

    [Fact]
    public void Every_system_call_is_in_the_table()
    {
        var called = typeof(EventLoop).Assembly.GetType("Evio.Transport.Native.Interop.Libc", throwOnError: true)!
            .GetMethods(BindingFlags.Static | BindingFlags.NonPublic | BindingFlags.DeclaredOnly)
            .Select(static method => method.Name)
            .Where(static name => !name.StartsWith('<') && !name.StartsWith("fcntl_", StringComparison.Ordinal))
            .Except(Manual.Elsewhere)
            .Distinct()
            .Order();
        Assert.Equal(called, Manual.Errors.Keys.Order());
        Assert.Equal(Manual.Errors.Keys.Order(), FaultTable.Rows.Select(static row => row.Call).Distinct().Order());
    }

    [Fact]
    public void Every_error_of_the_manual_is_in_the_table_once_for_each_purpose_of_the_call()
    {
        foreach (var rows in FaultTable.Rows.GroupBy(static row => (row.Call, row.Where)))
        {
            var errors = rows.SelectMany(static row => row.Errors).ToList();
            Assert.True(errors.Count == errors.Distinct().Count(), $"{rows.Key} has an error twice.");
            Assert.True(!Manual.Errors[rows.Key.Call].Except(errors).Any(), $"{rows.Key} lacks {string.Join(' ', Manual.Errors[rows.Key.Call].Except(errors))}.");
        }
    }

    [Theory, MemberData(nameof(Rows))]
    public async Task What_the_table_says_holds(string name)
    {
        Assert.SkipWhen(server.Missing is not null, server.Missing ?? "");
        var row = FaultTable.Rows.Single(row => row.ToString() == name);
        var current = "";
        try
        {
            foreach (var error in row.Errors)
            {
                current = error;
                await InjectAsync(row, ErrorNumbers.Of(error));
                server.Control.Disarm();
            }

            current = "in the end";
            await server.AssertUnharmedAsync();
        }
        catch (Exception exception)
        {
            // The other rows get a server that is well.
            await server.RestartAsync();
            throw new InvalidOperationException($"{current}: {exception.Message}", exception);
        }
    }

    [Theory]
    [InlineData("EPERM")]
    [InlineData("ECONNABORTED")]
    [InlineData("EINTR")]
    [InlineData("EMFILE")]
    public async Task An_accept_that_fails_for_ever_is_tried_in_batches_with_pauses(string error)
    {
        Assert.SkipWhen(server.Missing is not null, server.Missing ?? "");
        try
        {
            foreach (var port in server.StreamPorts)
            {
                await Eventually.SettlesAsync(() => server.Control.Calls(Call.EpollCtl));
                server.Control.Arm(new Fault(Call.Accept4, ErrorNumbers.Of(error), port, Count: int.MaxValue));
                using var client = EchoClient.Bind();
                var connected = client.TryConnectToAsync(port);
                await AssertFailsWithPausesAsync();

                // Who waits in the backlog is served when it is over.
                server.Control.Disarm();
                Assert.True(await connected);
                await client.ExchangeAsync(500);
            }

            await server.AssertUnharmedAsync();
        }
        catch
        {
            await server.RestartAsync();
            throw;
        }
    }

    [Fact]
    public async Task A_receive_of_datagrams_that_fails_for_ever_is_tried_in_batches_with_pauses()
    {
        Assert.SkipWhen(server.Missing is not null, server.Missing ?? "");
        try
        {
            foreach (var port in server.Ports.Datagrams)
            {
                server.Control.Arm(new Fault(Call.RecvMMsg, ErrorNumbers.Of("ENOMEM"), port, Count: int.MaxValue));
                var exchange = server.ExchangeDatagramAsync(port);
                await AssertFailsWithPausesAsync();
                Assert.False(exchange.IsCompleted);

                server.Control.Disarm();
                await exchange;
            }

            await server.AssertUnharmedAsync();
        }
        catch
        {
            await server.RestartAsync();
            throw;
        }
    }

    /// <summary>
    /// Waits for some pauses of what fails, which is not watched for each of them, and then again. There are no more failures than these leave room for; others are served
    /// meanwhile.
    /// </summary>
    private async Task AssertFailsWithPausesAsync()
    {
        const int Batch = 64;
        const int Rounds = 3;
        await Eventually.HoldsAsync(() => server.Control.Met() > 0);
        var before = server.Control.Calls(Call.EpollCtl);
        await Eventually.HoldsAsync(() => server.Control.Calls(Call.EpollCtl) - before >= 2 * Rounds, () => $"({server.Control.Met()} failures)");
        var met = server.Control.Met();
        var changes = server.Control.Calls(Call.EpollCtl) - before;

        // Each of the loops may have been in its first batch before, and be in its next.
        Assert.InRange(met, Rounds, Batch * ((changes / 2) + 1 + (2 * FaultServer.Loops)));
        await server.ExchangeOnSteadyAsync();
    }

    private Task InjectAsync(FaultRow row, int error)
    {
        var call = row.ToCall();
        return (row.Call, row.Where) switch
        {
            ("accept4", "a listener") => AcceptAsync(row, error),
            ("epoll_ctl", "a listener that begins to pause") => PauseAsync(row, error, EpollDelete),
            ("epoll_ctl", "a listener that has paused") => PauseAsync(row, error, EpollAdd),
            ("epoll_ctl", "an accepted connection") => OpenAsync(row, error, Call.EpollCtl, EpollAdd),
            ("getsockname", "an accepted connection") => OpenAsync(row, error, Call.GetSockName, FaultControl.Any, server.Ports.Kestrel[0]),
            ("recv" or "send", "a connection") => TransferAsync(row, error, call, size: 200, server.StreamPorts),

            // The callbacks' output is one buffer here.
            ("sendmsg", "a connection") => TransferAsync(row, error, call, size: 300_000, server.Ports.Kestrel),
            ("shutdown", "the end of the output") => CloseAsync(row, error, Call.Shutdown, ShutdownSend),
            ("close", "a connection") => CloseAsync(row, error, Call.Close, FaultControl.Any),
            ("getsockopt", "a reset") => ResetAsync(row, error),
            ("connect", "an abort") => AbortAsync(row, new Fault(Call.Connect, error, Detail: FamilyUnspecified)),
            ("shutdown", "an abort") => AbortAsync(row, new Fault(Call.Shutdown, error), new Fault(Call.Connect, error, Detail: FamilyUnspecified)),
            ("epoll_ctl", "a detached connection") => DetachAsync(row, error, Call.EpollCtl, EpollDelete),
            ("fcntl", "a detached connection") => DetachAsync(row, error, Call.FCntl, FaultControl.Any),
            ("epoll_wait", "a loop") => TrafficAsync(row, new Fault(Call.EpollWait, error, Count: Repeated)),
            ("write", "a wake-up") => WakeAsync(row, new Fault(Call.Write, error, Count: Repeated)),
            ("read", "a wake-up") => WakeAsync(row, new Fault(Call.Read, error), new Fault(Call.Write, ErrorNumbers.Of("EAGAIN"))),
            ("recvmmsg" or "sendmmsg", "datagrams") => DatagramAsync(row, error, call),
            (_, "the start of loops and a listener") => CommandsAsync(row, error, call, static mode => $"start {mode}", FailsStart),
            (_, "the start of a Unix-domain listener") => CommandsAsync(row, error, call, static mode => $"start-unix {mode}", FailsStart),
            (_, "an inherited listener") => CommandsAsync(row, error, call, static mode => $"inherit {mode}", FailsStart),
            (_, "the start of a UDP server") => CommandsAsync(row, error, call, static mode => $"datagrams {mode}", FailsStart, FaultServer.CallbackModes),
            (_, "an outbound connection") => CommandsAsync(row, error, call, mode => $"connect {mode} {server.EchoPort}", FailsAttempt),
            (_, "an outbound Unix-domain connection") => CommandsAsync(row, error, call, mode => $"connect-unix {mode} {server.UnixEchoPath}", FailsAttempt),
            _ => throw new InvalidDataException($"No test knows the row '{row}'."),
        };
    }

    private static InvalidDataException Unexpected(FaultRow row) => new InvalidDataException($"No test knows this effect of the row '{row}'.");

    // ---- Listeners ----

    private async Task AcceptAsync(FaultRow row, int error)
    {
        if (row.Effect == Unnoticed)
        {
            // A listener that has paused in another test is watched again 100 ms later.
            await Eventually.SettlesAsync(() => server.Control.Calls(Call.EpollCtl));
        }

        foreach (var port in server.StreamPorts)
        {
            var before = server.Control.Calls(Call.EpollCtl);
            var clients = await ServeAsync(port, new Fault(Call.Accept4, error, port, Count: Repeated));
            Assert.Equal(Repeated, server.Control.Met());

            // Each client is watched; a listener that pauses is not watched for that time, and then again.
            var changes = server.Control.Calls(Call.EpollCtl) - before - clients;
            Assert.Equal(changes > 0, row.Effect switch { Unnoticed => false, Pauses => true, _ => throw Unexpected(row) });
        }
    }

    /// <summary>Has a listener pause, and a fault meet how it is taken off the poller, or put back there.</summary>
    private async Task PauseAsync(FaultRow row, int error, int operation)
    {
        Assert.Equal(Unnoticed, row.Effect);
        foreach (var port in server.StreamPorts)
        {
            // A pause that an earlier fault has begun may last: another one does not begin meanwhile.
            await Eventually.HoldsAsync(async () =>
            {
                _ = await ServeAsync(
                    port, new Fault(Call.EpollCtl, error, port, operation), new Fault(Call.Accept4, ErrorNumbers.Of("EMFILE"), port, Count: Repeated));
                return (server.Control.Met(0), server.Control.Met(1)) == (1, Repeated);
            });
        }
    }

    /// <summary>Serves some new clients in the face of faults.</summary>
    /// <returns>How many.</returns>
    private async Task<int> ServeAsync(int port, params Fault[] faults)
    {
        server.Control.Arm(faults);
        var clients = await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => EchoClient.ConnectAsync(port)));
        await Task.WhenAll([server.ExchangeOnSteadyAsync(), .. clients.Select(static client => client.ExchangeAsync(500))]);
        Array.ForEach(clients, static client => client.Dispose());
        return clients.Length;
    }

    // ---- Connections ----

    private async Task OpenAsync(FaultRow row, int error, Call call, int detail, params int[] ports)
    {
        foreach (var port in ports.Length > 0 ? ports : server.StreamPorts)
        {
            using var victim = EchoClient.Bind();
            server.Control.Arm(new Fault(call, error, victim.LocalPort, detail));
            await AssertAsync(row, victim, exchanges: await victim.TryConnectToAsync(port) ? 1 : 0, size: 200);
        }
    }

    private async Task TransferAsync(FaultRow row, int error, Call call, int size, params int[] ports)
    {
        foreach (var port in ports)
        {
            foreach (var first in (int[])[1, 3])
            {
                using var victim = await EchoClient.ConnectAsync(port);
                await victim.ExchangeAsync(200);
                server.Control.Arm(new Fault(call, error, victim.LocalPort, First: first, Count: row.Effect == Unnoticed ? Repeated : 1));
                await AssertAsync(row, victim, exchanges: 6, size);
            }
        }
    }

    /// <summary>Has a client exchange messages while a fault waits for it, and the others of all servers theirs.</summary>
    private async Task AssertAsync(FaultRow row, EchoClient victim, int exchanges, int size)
    {
        var others = server.ExchangeOnSteadyAsync();
        var served = exchanges > 0;
        for (var i = 0; served && i < exchanges; i++)
        {
            served = await victim.TryExchangeAsync(size);
        }

        await others;
        Assert.InRange(server.Control.Met(), 1, Repeated);
        Assert.Equal(served, row.Effect switch { Unnoticed => true, EndsConnection => false, _ => throw Unexpected(row) });
    }

    private async Task CloseAsync(FaultRow row, int error, Call call, int detail)
    {
        Assert.Equal(Unnoticed, row.Effect);
        foreach (var port in server.StreamPorts)
        {
            using var victim = await EchoClient.ConnectAsync(port);
            await victim.ExchangeAsync(200);

            // Any further call would be met as well: a descriptor is closed once, whatever close(2) says.
            server.Control.Arm(new Fault(call, error, victim.LocalPort, detail, Count: int.MaxValue));
            var others = server.ExchangeOnSteadyAsync();
            victim.Socket.Shutdown(SocketShutdown.Send);
            Assert.Empty(await victim.Socket.ReceiveToEndAsync().OrTimeout());
            await others;
            await Eventually.HoldsAsync(() => server.Control.Met() > 0);
            if (call == Call.Close)
            {
                await server.CommandAsync("wake");
                Assert.Equal(1, server.Control.Met());
            }
        }
    }

    private async Task ResetAsync(FaultRow row, int error)
    {
        Assert.Equal(EndsConnection, row.Effect);

        // The callbacks receive, and so come to the error itself.
        foreach (var port in server.Ports.Kestrel)
        {
            using var victim = await EchoClient.ConnectAsync(port);
            await victim.ExchangeAsync(200);
            server.Control.Arm(new Fault(Call.GetSockOpt, error, victim.LocalPort, OptionError));
            victim.Socket.Reset();
            await server.ExchangeOnSteadyAsync();
            await Eventually.HoldsAsync(() => server.Control.Met() == 1);
        }
    }

    private async Task AbortAsync(FaultRow row, params Fault[] faults)
    {
        Assert.Equal(EndsConnection, row.Effect);
        foreach (var port in server.Ports.Kestrel)
        {
            using var victim = await EchoClient.ConnectAsync(port);
            server.Control.Arm([.. faults.Select(fault => fault with { Port = victim.LocalPort })]);
            var others = server.ExchangeOnSteadyAsync();
            await victim.Socket.SendAllAsync(new[] { FaultServer.Abort }).OrTimeout();
            Assert.Empty(await victim.ReceiveToAnyEndAsync());
            await others;
            Assert.Equal(1, server.Control.Met());
        }
    }

    private async Task DetachAsync(FaultRow row, int error, Call call, int detail)
    {
        foreach (var port in server.Ports.Callbacks)
        {
            var first = 1;
            while (await DetachAsync(row, port, new Fault(call, error, Detail: detail, First: first)))
            {
                first++;
            }

            Assert.True(first > 1, "The call is not made.");
        }
    }

    /// <returns>Whether the fault has met a call.</returns>
    private async Task<bool> DetachAsync(FaultRow row, int port, Fault fault)
    {
        using var victim = await EchoClient.ConnectAsync(port);
        server.Control.Arm(fault with { Port = victim.LocalPort });
        var others = server.ExchangeOnSteadyAsync();
        await victim.Socket.SendAllAsync(new[] { FaultServer.Detach }).OrTimeout();
        var received = await victim.ReceiveToAnyEndAsync();
        await others;
        var isMet = server.Control.Met() > 0;
        var detaches = !isMet || row.Effect switch { Unnoticed => true, EndsConnection => false, _ => throw Unexpected(row) };
        Assert.Equal(detaches ? FaultServer.Detached : [], received);
        return isMet;
    }

    // ---- Loops ----

    private async Task TrafficAsync(FaultRow row, Fault fault)
    {
        Assert.Equal(Unnoticed, row.Effect);
        server.Control.Arm(fault);
        await server.ExchangeOnSteadyAsync();
        Assert.Equal(FaultedServer.Done, await server.CommandAsync("wake"));
        await Eventually.HoldsAsync(() => server.Control.Met() == fault.Count);
    }

    private async Task WakeAsync(FaultRow row, params Fault[] faults)
    {
        Assert.Equal(Unnoticed, row.Effect);
        server.Control.Arm(faults);
        var others = server.ExchangeOnSteadyAsync();
        await Eventually.HoldsAsync(async () =>
        {
            // A loop that is awake at the moment needs no wake-up.
            Assert.Equal(FaultedServer.Done, await server.CommandAsync("wake"));
            return server.Control.Met() == faults[0].Count;
        });
        await others;
    }

    private async Task DatagramAsync(FaultRow row, int error, Call call)
    {
        foreach (var port in server.Ports.Datagrams)
        {
            server.Control.Arm(new Fault(call, error, port, Count: Repeated));
            var others = server.ExchangeOnSteadyAsync();
            await server.ExchangeDatagramAsync(port, row.Effect switch { Unnoticed => 0, LosesReply => Repeated, _ => throw Unexpected(row) });
            await others;
            Assert.InRange(server.Control.Met(), 1, Repeated);
        }
    }

    // ---- Commands ----

    /// <summary>Fails the calls of a command in every scheduling mode.</summary>
    private Task CommandsAsync(FaultRow row, int error, Call call, Func<LoopScheduling, string> command, string failure) =>
        CommandsAsync(row, error, call, command, failure, FaultServer.Modes);

    private async Task CommandsAsync<TMode>(FaultRow row, int error, Call call, Func<TMode, string> command, string failure, TMode[] modes)
    {
        foreach (var mode in modes)
        {
            await CommandAsync(row, error, call, command(mode), failure);
        }
    }

    /// <summary>Fails every call of a kind that a command makes, one after the other.</summary>
    private async Task CommandAsync(FaultRow row, int error, Call call, string command, string failure)
    {
        var failed = row.Effect == failure || (row.Effect == Unnoticed ? false : throw Unexpected(row));
        for (var first = 1; first <= MaxCallsOfACommand; first++)
        {
            server.Control.Arm(new Fault(call, error, Detail: DetailOf(call), First: first));
            var others = server.ExchangeOnSteadyAsync();
            var answer = await server.CommandAsync(command);
            server.Control.Disarm();
            await others;
            if (server.Control.Met() == 0)
            {
                Assert.True(first > 1, "The call is not made.");
                Assert.Equal(FaultedServer.Done, answer);
                return;
            }

            Assert.True(answer == FaultedServer.Done != failed, $"Call {first}: {answer}");
        }

        Assert.Fail("The calls have no end.");
    }

    /// <summary>What the call is about where a command also makes it for another purpose, which has a row of its own.</summary>
    private static int DetailOf(Call call) => call switch
    {
        Call.EpollCtl => EpollAdd,
        Call.GetSockOpt => OptionError,
        _ => FaultControl.Any,
    };
}
