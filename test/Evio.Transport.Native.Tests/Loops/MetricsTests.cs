using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

/// <summary>What the loops report of themselves, counted.</summary>
public sealed class MetricsTests
{
    [Fact]
    public async Task Connections_accepts_and_bytes_are_counted_per_loop()
    {
        using var meters = new Meters();
        await using var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 2, LoadBalance = LoadBalance.RoundRobin, MeterFactory = meters });
        using var accepted = new BlockingCollection<StreamSocket>();
        await using var listener = await group.ListenAsync(Server.Loopback, socket =>
        {
            socket.Start(new RecordingHandler(socket));
            accepted.Add(socket);
        }).Within();
        using var first = Server.Dial(listener.LocalEndPoint);
        var socket = accepted.Take();
        using var second = Server.Dial(listener.LocalEndPoint);
        _ = accepted.Take();

        Assert.Equal(2, meters.Sum("evio.loop.accepts"));
        Assert.Equal([(0, 1), (1, 1)], meters.Observe("evio.loop.connections"));

        first.Send(new byte[100]);
        Assert.True(first.Poll(0, SelectMode.SelectWrite));
        var buffer = new byte[1000];
        Waiting.Until(() => socket.Receive(buffer).Count == 100);
        Assert.Equal(30, socket.Send(new byte[30]).Count);
        Assert.Equal(12, socket.Send([new byte[5], new byte[7]]).Count);

        var loop = ("evio.loop.index", (object?)socket.Loop.Index);
        Assert.Equal(100, meters.Sum("evio.loop.io", loop, ("network.io.direction", "receive")));
        Assert.Equal(42, meters.Sum("evio.loop.io", loop, ("network.io.direction", "transmit")));
        Assert.Equal(142, meters.Sum("evio.loop.io"));
        Assert.Equal(0, meters.Sum("evio.loop.accept.failures"));

        socket.Close();
        Waiting.Until(() => meters.Observe("evio.loop.connections").Sum(static loop => loop.Value) == 1);
    }

    [Fact]
    public async Task Wake_ups_are_system_calls_and_not_calls()
    {
        const int Posts = 100;
        using var meters = new Meters();
        await using var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1, MeterFactory = meters });
        var loop = group.Loops[0];
        using var entered = new SemaphoreSlim(0);
        using var release = new SemaphoreSlim(0);
        Assert.True(loop.TryPost(
            _ =>
            {
                entered.Release();
                release.Await();
            },
            null));
        entered.Await();
        var before = meters.Sum("evio.loop.wakeups");

        // The loop is busy: it will look into its queue before it waits again.
        for (var i = 0; i < Posts; i++)
        {
            Assert.True(loop.TryPost(i == Posts - 1 ? _ => entered.Release() : static _ => { }, null));
        }

        release.Release();
        entered.Await();
        Assert.Equal(before, meters.Sum("evio.loop.wakeups"));
        Assert.InRange(before, 0, 1);
    }

    [Fact]
    public async Task Busy_time_is_the_time_outside_of_the_wait()
    {
        var busy = TimeSpan.FromMilliseconds(30);
        using var meters = new Meters();
        await using var group = new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1, MeterFactory = meters });
        using var passed = new ManualResetEventSlim();

        // The pass that the first call belongs to is counted before the second, which it posts for the next pass.
        Assert.True(group.Loops[0].TryPost(
            _ =>
            {
                Thread.Sleep(busy);
                group.Loops[0].TryPost(_ => passed.Set(), null);
            },
            null));
        passed.Await();

        Assert.InRange(meters.Sum("evio.loop.busy.time"), busy.TotalSeconds * 0.9, Waiting.Limit.TotalSeconds);
    }

    [Fact]
    public async Task A_group_without_a_factory_has_a_meter_of_its_own_which_ends_with_it()
    {
        var ended = 0;
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, listener) =>
            {
                if (instrument.Meter.Name == EventLoopGroup.MeterName && instrument.Name == "evio.loop.accepts" && instrument.Meter.Scope is null)
                {
                    listener.EnableMeasurementEvents(instrument, "own");
                }
            },
            MeasurementsCompleted = (_, _) => Interlocked.Increment(ref ended),
        };
        listener.Start();

        await new EventLoopGroup(new EventLoopGroupOptions { LoopCount = 1 }).DisposeAsync();

        Assert.Equal(1, ended);
    }

    /// <summary>A factory whose meters are listened to, and those of nobody else.</summary>
    private sealed class Meters : IMeterFactory
    {
        private readonly List<Meter> _meters = [];
        private readonly MeterListener _listener;
        private readonly ConcurrentQueue<(string Instrument, double Value, KeyValuePair<string, object?>[] Attributes)> _measurements = new();

        internal Meters()
        {
            _listener = new MeterListener
            {
                InstrumentPublished = (instrument, listener) =>
                {
                    if (instrument.Meter.Scope == this)
                    {
                        listener.EnableMeasurementEvents(instrument);
                    }
                },
            };
            _listener.SetMeasurementEventCallback<int>((instrument, value, attributes, _) => Add(instrument, value, attributes));
            _listener.SetMeasurementEventCallback<long>((instrument, value, attributes, _) => Add(instrument, value, attributes));
            _listener.SetMeasurementEventCallback<double>((instrument, value, attributes, _) => Add(instrument, value, attributes));
            _listener.Start();
        }

        public Meter Create(MeterOptions options)
        {
            options.Scope = this;
            var meter = new Meter(options);
            _meters.Add(meter);
            return meter;
        }

        internal double Sum(string instrument, params (string Name, object? Value)[] attributes) => _measurements
            .Where(measurement => measurement.Instrument == instrument
                && attributes.All(wanted => measurement.Attributes.Contains(new(wanted.Name, wanted.Value))))
            .Sum(static measurement => measurement.Value);

        /// <summary>What an observable instrument says now, by loop.</summary>
        internal (int Loop, int Value)[] Observe(string instrument)
        {
            _measurements.Clear();
            _listener.RecordObservableInstruments();
            return [.. _measurements
                .Where(measurement => measurement.Instrument == instrument)
                .Select(static measurement => ((int)measurement.Attributes.Single().Value!, (int)measurement.Value))
                .Order()];
        }

        public void Dispose()
        {
            _listener.Dispose();
            _meters.ForEach(static meter => meter.Dispose());
        }

        private void Add(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> attributes) =>
            _measurements.Enqueue((instrument.Name, value, attributes.ToArray()));
    }
}
