using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>What the kernel is asked for each message, counted by strace(1).</summary>
public sealed class SystemCallTests
{
    private const int Connections = 50;
    private const int Rounds = 20;
    private const int MessageSize = 64;

    [Theory]
    [InlineData("tcp")]
    [InlineData("unix")]
    public async Task Message_CostsOneReceiveOneSendAndAShareOfAWait(string scheme)
    {
        Assert.SkipUnless(
            (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(static path => File.Exists(Path.Combine(path, "strace"))),
            "There is no strace.");
        using var directory = new TemporaryDirectory();
        var address = scheme == "tcp" ? "tcp://127.0.0.1:0" : $"{scheme}://{directory.File("socket")}";
        using var server = await TracedServer.StartAsync(address, directory.File("strace"));
        using var first = await Client.ConnectAsync(server.EndPoint);
        for (var i = 0; i < 100; i++)
        {
            _ = await first.EchoAsync(Message('W'));
        }

        await server.TraceAsync();
        var clients = new List<Client>();
        for (var i = 0; i < Connections; i++)
        {
            clients.Add(await Client.ConnectAsync(server.EndPoint));
            _ = await clients[i].EchoAsync(Message('C'));
        }

        for (var i = 0; i < Rounds; i++)
        {
            await EchoOnAllAsync('M');
        }

        // Held in a callback, the loop finds the messages of all others together.
        await first.WriteAsync(Message(TracedServer.Hold));
        foreach (var client in clients)
        {
            await client.WriteAsync(Message('T'));
        }

        server.Release();
        foreach (var client in clients)
        {
            Assert.Equal(Message('T'), await client.ReadAsync(MessageSize));
        }

        var calls = await server.EndAsync();
        clients.ForEach(static client => client.Dispose());

        // Registered once, and never changed.
        var served = Names(Between(calls, "accept4", null, "sendto", "HT"));
        Assert.Equal(Connections, served["epoll_ctl"]);

        // From the first message to the last, and nothing besides.
        var steady = Names(Between(calls, "recvfrom", "M", "sendto", "M"));
        Assert.Equal(["epoll_wait", "recvfrom", "sendto"], steady.Keys.Order());
        Assert.Equal(Connections * Rounds, steady["recvfrom"]);
        Assert.Equal(Connections * Rounds, steady["sendto"]);

        // On Unix-domain sockets the kernel also tells of the peer having read a reply: there is room again.
        var mostEvents = Connections * Rounds * (scheme == "unix" ? 2 : 1);
        Assert.InRange(steady["epoll_wait"], Rounds - 1, mostEvents);

        // All were there when the callback returned: one wait tells of all that had not come before. A loaded machine may bring a few of them later
        // (softirq).
        var together = Names(Between(calls, "recvfrom", "HT", "sendto", "HT"));
        Assert.Equal(Connections + 1, together["recvfrom"]);
        Assert.Equal(Connections + 1, together["sendto"]);
        var held = calls.FindIndex(static call => Is(call, "sendto", "H"));
        Assert.InRange(Names(Between(calls[held..], "sendto", "HT", "sendto", "HT")).GetValueOrDefault("epoll_wait"), 0, 5);

        async Task EchoOnAllAsync(char kind)
        {
            foreach (var client in clients)
            {
                await client.WriteAsync(Message(kind));
            }

            foreach (var client in clients)
            {
                Assert.Equal(Message(kind), await client.ReadAsync(MessageSize));
            }
        }
    }

    private static byte[] Message(char kind) => Enumerable.Repeat((byte)kind, MessageSize).ToArray();

    /// <summary>The calls from the first of a name to the last of another; those that transfer a message can be told by its kind.</summary>
    private static List<string> Between(List<string> calls, string firstName, string? firstKinds, string lastName, string lastKinds)
    {
        var start = calls.FindIndex(call => Is(call, firstName, firstKinds));
        var end = calls.FindLastIndex(call => Is(call, lastName, lastKinds));
        Assert.True(start >= 0 && end >= start, string.Join('\n', calls));
        return calls[start..(end + 1)];
    }

    private static bool Is(string call, string name, string? kinds) =>
        call.StartsWith($"{name}(", StringComparison.Ordinal)
        && (kinds is null || kinds.Any(kind => call.Contains($", \"{kind}\"", StringComparison.Ordinal)));

    /// <summary>How often each call was made. epoll_wait(3) is epoll_pwait(2) where the kernel has no other.</summary>
    private static Dictionary<string, int> Names(List<string> calls) => calls
        .CountBy(static call => call[..call.IndexOf('(', StringComparison.Ordinal)].Replace("epoll_pwait", "epoll_wait", StringComparison.Ordinal))
        .ToDictionary();
}
