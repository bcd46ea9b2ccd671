using System.Net.Sockets;
using System.Text;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>What a connection ends with after one of its sides has ended its output.</summary>
public sealed class HalfCloseTests
{
    public static TheoryData<string, LoopScheduling> Cases => InBothModes(Site.Schemes);

    public static TheoryData<string, LoopScheduling> TcpCases => InBothModes(Site.TcpSchemes);

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task PeersEndAfterTheOwn_IsNoErrorAndLosesNothing(string scheme, LoopScheduling scheduling)
    {
        await using var site = new Site(scheme);
        var ends = new Ends();
        await site.StartAsync(
            new Events
            {
                Opened = static (connection, ref _) =>
                {
                    connection.ShutdownSend();
                    return EvioAction.None;
                },
                Data = Ends.OnData,
                Closed = ends.OnClosed,
            },
            scheduling);

        for (var i = 0; i < 20; i++)
        {
            var client = await site.ConnectAsync();
            await client.ExpectToEndAsync("");
            await client.WriteAsync("last");
            client.Dispose();

            Assert.Equal(("last", null), await ends.NextAsync());
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task OwnEndAfterThePeers_IsNoErrorAndLosesNothing(string scheme, LoopScheduling scheduling)
    {
        await using var site = new Site(scheme);
        var ends = new Ends();
        await site.StartAsync(
            new Events
            {
                Data = static (connection, input) =>
                {
                    connection.Write("answer"u8);
                    connection.ShutdownSend();
                    return Ends.OnData(connection, input);
                },
                Closed = ends.OnClosed,
            },
            scheduling);

        for (var i = 0; i < 20; i++)
        {
            var client = await site.ConnectAsync();
            await client.WriteAsync("last");
            client.ShutdownSend();
            await client.ExpectToEndAsync("answer");

            Assert.Equal(("last", null), await ends.NextAsync());
        }
    }

    /// <summary>A peer of a Unix-domain connection that has read everything cannot reset it.</summary>
    [Theory]
    [MemberData(nameof(TcpCases))]
    public async Task ResetAfterTheOwnEnd_IsAnError(string scheme, LoopScheduling scheduling)
    {
        await using var site = new Site(scheme);
        var ends = new Ends();
        await site.StartAsync(
            new Events
            {
                Opened = static (connection, ref _) =>
                {
                    connection.ShutdownSend();
                    return EvioAction.None;
                },
                Data = Ends.OnData,
                Closed = ends.OnClosed,
            },
            scheduling);

        var client = await site.ConnectAsync();
        await client.ExpectToEndAsync("");
        client.Reset();

        Assert.Equal(("", SocketError.ConnectionReset), await ends.NextAsync());
    }

    private static TheoryData<string, LoopScheduling> InBothModes(TheoryData<string> schemes)
    {
        var cases = new TheoryData<string, LoopScheduling>();
        foreach (string scheme in schemes)
        {
            cases.Add(scheme, LoopScheduling.Inline);
            cases.Add(scheme, LoopScheduling.Adaptive);
        }

        return cases;
    }

    /// <summary>What a server's connections got, and ended with.</summary>
    private sealed class Ends
    {
        private readonly System.Threading.Channels.Channel<(string, SocketError?)> _ends =
            System.Threading.Channels.Channel.CreateUnbounded<(string, SocketError?)>();

        internal static EvioAction OnData(Connection connection, ReadOnlySpan<byte> input)
        {
            connection.Context += Encoding.ASCII.GetString(input);
            return EvioAction.None;
        }

        internal EvioAction OnClosed(Connection connection, Exception? error)
        {
            Assert.True(error is null or SocketException, error?.ToString());
            Assert.True(_ends.Writer.TryWrite(($"{connection.Context}", (error as SocketException)?.SocketErrorCode)));
            return EvioAction.None;
        }

        internal Task<(string Received, SocketError? Error)> NextAsync() => _ends.Reader.ReadAsync().AsTask().Within();
    }
}
