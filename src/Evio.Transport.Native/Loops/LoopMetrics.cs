using System.Diagnostics.Metrics;
using System.Runtime.CompilerServices;

namespace Evio.Transport.Native.Loops;

/// <summary>The instruments of a group of loops; <see cref="EventLoopGroup.MeterName"/> lists them.</summary>
internal sealed class LoopMetrics : IDisposable
{
    private const string LoopAttribute = "evio.loop.index";

    private readonly Meter _meter;
    private readonly bool _ownsMeter;

    internal LoopMetrics(IMeterFactory? factory, EventLoop[] loops, Notifications notifications)
    {
        Notifications = notifications;
        _ownsMeter = factory is null;
        var version = typeof(LoopMetrics).Assembly.GetName().Version?.ToString(3);
        var options = new MeterOptions(EventLoopGroup.MeterName) { Version = version };
        _meter = factory?.Create(options) ?? new Meter(options);
        _meter.CreateObservableUpDownCounter(
            "evio.loop.connections",
            () => loops.OfType<EventLoop>().Select(static loop => new Measurement<int>(loop.ConnectionCount, Attribute(loop.Index))),
            "{connection}",
            "Open connections that the loop owns.");
        Accepts = _meter.CreateCounter<long>("evio.loop.accepts", "{connection}", "Connections accepted by the loop's listening descriptors.");
        AcceptFailures = _meter.CreateCounter<long>("evio.loop.accept.failures", "{failure}", "Accepts that the system refused.");
        IO = _meter.CreateCounter<long>("evio.loop.io", "By", "Bytes received and sent.");
        WakeUps = _meter.CreateCounter<long>("evio.loop.wakeups", "{wakeup}", "System calls that woke the loop for other threads' calls.");
        TakeOvers = _meter.CreateCounter<long>("evio.loop.takeovers", "{takeover}", "Threads that lost the loop to another one because a call took long, or was expected to.");
        BusyTime = _meter.CreateCounter<double>("evio.loop.busy.time", "s", "Time outside of the wait for events.");
    }

    /// <summary>Handles what a listener throws.</summary>
    internal Notifications Notifications { get; }

    internal Counter<long> Accepts { get; }

    internal Counter<long> AcceptFailures { get; }

    internal Counter<long> IO { get; }

    internal Counter<long> WakeUps { get; }

    internal Counter<long> TakeOvers { get; }

    internal Counter<double> BusyTime { get; }

    internal LoopMeter ForLoop(int index) => new(this, Attribute(index));

    /// <summary>Disposes of the group's own meter. A factory disposes of a meter that it has created.</summary>
    public void Dispose()
    {
        if (_ownsMeter)
        {
            _meter.Dispose();
        }
    }

    private static KeyValuePair<string, object?> Attribute(int index) => new(LoopAttribute, index);
}

/// <summary>
/// Records the measurements of one loop with its group's instruments. Without a listener, the check for one is the only cost. A listener is
/// user code that runs in the middle of the reactor's code. What it throws is no failure of the reactor (<see cref="Notifications"/>). From
/// any thread.
/// </summary>
internal sealed class LoopMeter(LoopMetrics metrics, KeyValuePair<string, object?> loop)
{
    private static readonly KeyValuePair<string, object?> Receive = new("network.io.direction", "receive");
    private static readonly KeyValuePair<string, object?> Transmit = new("network.io.direction", "transmit");

    // Copies of the instruments save an indirection on the loops' hottest paths.
    private readonly Counter<long> _io = metrics.IO;
    private readonly Counter<double> _busyTime = metrics.BusyTime;
    private readonly KeyValuePair<string, object?> _loop = loop;

    /// <summary>Whether the instrument of the busy time has a listener.</summary>
    internal bool IsTimed => _busyTime.Enabled;

    internal void Accepted() => Count(metrics.Accepts);

    internal void AcceptFailed() => Count(metrics.AcceptFailures);

    internal void Woken() => Count(metrics.WakeUps);

    internal void TakenOver() => Count(metrics.TakeOvers);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Received(nint count)
    {
        if (_io.Enabled)
        {
            Add(_io, count, Receive);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Sent(nint count)
    {
        if (_io.Enabled)
        {
            Add(_io, count, Transmit);
        }
    }

    internal void Busy(TimeSpan time) =>
        metrics.Notifications.Call(static call => call.meter._busyTime.Add(call.time.TotalSeconds, call.meter._loop), (meter: this, time));

    private void Count(Counter<long> counter)
    {
        if (counter.Enabled)
        {
            metrics.Notifications.Call(static call => call.counter.Add(1, call.meter._loop), (meter: this, counter));
        }
    }

    private void Add(Counter<long> counter, nint count, KeyValuePair<string, object?> direction) =>
        metrics.Notifications.Call(
            static call => call.counter.Add(call.count, call.meter._loop, call.direction), (meter: this, counter, count, direction));
}
