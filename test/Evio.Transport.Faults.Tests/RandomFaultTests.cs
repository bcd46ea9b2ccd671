using System.Globalization;
using Evio.Transport.Testing;

namespace Evio.Transport.Faults.Tests;

/// <summary>Every call of a running server may fail at any time, with any error of docs/faults.md.</summary>
public sealed class RandomFaultTests(FaultedServer server) : IClassFixture<FaultedServer>
{
    private const int Clients = 4;
    private const int ConnectionsPerClient = 200;
    private const int MaxMessages = 6;
    private const int MaxSize = 100_000;

    /// <summary>How many of a million calls fail with an error that ends no connection...</summary>
    private const int Passing = 30_000;

    /// <summary>...and with any. With more no connection would live.</summary>
    private const int Fatal = 4_000;

    /// <summary>The calls of a server that is up. What only its start makes has its turn in the table.</summary>
    private static readonly Call[] Calls =
    [
        Call.Accept4, Call.Close, Call.EpollCtl, Call.EpollWait, Call.GetSockName, Call.GetSockOpt, Call.Read, Call.Recv, Call.RecvMsg, Call.Send,
        Call.SendMsg, Call.Shutdown, Call.Write,
    ];

    /// <summary>What may end a connection.</summary>
    private static readonly HashSet<(Call, int)> Ends =
    [
        .. FaultTable.Rows.Where(static row => row.Effect == FaultRow.EndsConnection)
            .SelectMany(static row => row.Errors.Select(error => (row.ToCall(), ErrorNumbers.Of(error)))),
    ];

    [Theory]
    [InlineData("1", false)]
    [InlineData("1", true)]
    [InlineData("any", false)]
    [InlineData("any", true)]
    public async Task Connections_get_their_bytes_or_an_end_that_a_fault_explains(string seedName, bool fatal)
    {
        Assert.SkipWhen(server.Missing is not null, server.Missing ?? "");
        var seed = seedName == "any" ? TestData.NewSeed() : int.Parse(seedName, CultureInfo.InvariantCulture);
        var chances = FaultTable.Rows
            .SelectMany(static row => row.Errors.Select(error => (Call: row.ToCall(), Error: ErrorNumbers.Of(error))))
            .Where(fault => Calls.Contains(fault.Call) && (fatal || !Ends.Contains(fault)))
            .Distinct()
            .GroupBy(static fault => fault.Call)
            .ToDictionary(static faults => faults.Key, faults => (fatal ? Fatal : Passing, faults.Select(static fault => fault.Error).ToArray()));
        try
        {
            await RunAsync(seed, chances);
            await server.AssertUnharmedAsync();
        }
        catch
        {
            // The others get a server that is well.
            await server.RestartAsync();
            throw;
        }
    }

    private async Task RunAsync(int seed, Dictionary<Call, (int Millionths, int[] Errors)> chances)
    {
        server.Control.ArmChances(seed, chances);
        var ended = await Task.WhenAll(
            from port in server.StreamPorts
            from client in Enumerable.Range(0, Clients)
            select Task.Run(() => RunClientAsync(port, new Random(seed + (1000 * client) + port))));

        server.Control.Disarm();
        var faults = server.Control.Log();
        var explained = faults.Where(static fault => Ends.Contains((fault.Call, fault.Error))).Select(static fault => fault.Port).ToHashSet();
        Assert.All(ended.SelectMany(static ports => ports), port => Assert.Contains(port, explained));
        Assert.InRange(faults.Count, 100, int.MaxValue);
        TestContext.Current.TestOutputHelper?.WriteLine($"{faults.Count} faults, {ended.Sum(static ports => ports.Count)} connections ended");
        await server.RestoreSteadyAsync();
    }

    /// <returns>The ports of the connections that the server ended.</returns>
    private static async Task<List<int>> RunClientAsync(int port, Random random)
    {
        var ended = new List<int>();
        for (var i = 0; i < ConnectionsPerClient; i++)
        {
            using var client = EchoClient.Bind();
            var own = client.LocalPort;
            var served = await client.TryConnectToAsync(port);
            for (var messages = random.Next(MaxMessages); served && messages >= 0; messages--)
            {
                served = await client.TryExchangeAsync(random.Next(3) == 0 ? random.Next(1, MaxSize) : random.Next(1, 1000));
            }

            if (!served)
            {
                ended.Add(own);
            }
            else if (random.Next(4) == 0)
            {
                client.Socket.Reset();
            }
        }

        return ended;
    }
}
