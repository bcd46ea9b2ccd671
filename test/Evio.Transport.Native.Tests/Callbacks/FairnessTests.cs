using Evio.Transport.Native.Callbacks;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>However much is asked of one connection from other threads, the others get their turn.</summary>
public sealed class FairnessTests
{
    private const int Many = 50 * WorkQueue.MaxItemsPerPass;

    /// <summary>In the fallback, what the sockets report is posted like everything else, and comes in the order of posting.</summary>
    public static TheoryData<string> PollerSchemes => ["tcp", "unix"];

    [Theory]
    [MemberData(nameof(PollerSchemes))]
    public async Task Wakes_OfOneConnectionLeaveTheOthersTheirTurn(string scheme)
    {
        await using var world = await World.StartAsync(scheme);

        var (wakes, _) = await world.MeasureAsync(connection =>
        {
            for (var i = 0; i < Many; i++)
            {
                Assert.True(connection.Wake());
            }
        });

        Assert.InRange(wakes, 0, StreamConnection.MaxWakesPerTurn);
        await world.Woken.ReachesAsync(Many);
        await world.Site.Server!.StopAsync().Within();
        Assert.Equal(Many, world.Woken.Value);
    }

    [Theory]
    [MemberData(nameof(PollerSchemes))]
    public async Task Sends_OfOneConnectionLeaveTheOthersTheirTurn(string scheme)
    {
        await using var world = await World.StartAsync(scheme);
        var received = world.FirstClient.ReadAsync(Many);
        var sends = new List<Task>();

        var (_, sent) = await world.MeasureAsync(connection =>
        {
            for (var i = 0; i < Many; i++)
            {
                sends.Add(connection.SendAsync(new[] { (byte)i }));
            }
        });

        Assert.InRange(sent, 0, WorkQueue.MaxItemsPerPass);
        await Task.WhenAll(sends).Within();
        Assert.Equal(Enumerable.Range(0, Many).Select(static i => (byte)i), await received);
    }

    private sealed class World : IAsyncDisposable
    {
        private readonly TaskCompletionSource<(long Wakes, long Sent)> _measured = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private Connection? _first;

        private World(string scheme) => Site = new Site(scheme);

        internal Site Site { get; }

        internal Client FirstClient { get; private set; } = null!;

        internal Client SecondClient { get; private set; } = null!;

        internal Counter Woken { get; } = new();

        internal static async Task<World> StartAsync(string scheme)
        {
            var world = new World(scheme);
            await world.Site.StartAsync(
                new Events
                {
                    Opened = (connection, ref _) =>
                    {
                        world._first ??= connection;
                        return EvioAction.None;
                    },
                    Data = (connection, input) =>
                    {
                        if (input.IsEmpty)
                        {
                            world.Woken.Add();
                        }
                        else if (connection != world._first)
                        {
                            world._measured.TrySetResult((world.Woken.Value, world._first!.BytesSent + world._first.PendingOutput));
                        }
                        else
                        {
                            connection.Write(input);
                        }

                        return EvioAction.None;
                    },
                },
                LoopScheduling.Inline);
            world.FirstClient = await world.Site.ConnectAsync();
            await world.FirstClient.ExpectEchoAsync("x");
            world.SecondClient = await world.Site.ConnectAsync();
            return world;
        }

        /// <summary>Has input for the second connection come, and after that <paramref name="flood"/> asks much for the first.</summary>
        /// <returns>How much of that was done when the second's input was delivered.</returns>
        internal async Task<(long Wakes, long Sent)> MeasureAsync(Action<Connection> flood)
        {
            var loop = Site.Server!.Loops[0];
            var sent = _first!.BytesSent;
            using (new BusyLoop(loop))
            {
                Assert.True(loop.TryPost(_ => SecondClient.Socket.Send([1]), null));
                flood(_first!);
            }

            var measured = await _measured.Task.Within();
            return (measured.Wakes, measured.Sent - sent);
        }

        public ValueTask DisposeAsync() => Site.DisposeAsync();
    }
}
