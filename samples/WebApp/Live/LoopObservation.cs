using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Text.Json.Serialization;
using Evio.Transport;
using Evio.Transport.Native;

namespace Evio.Samples.WebApp.Live;

/// <summary>What a loop did since the last sample: rates per second, except for connections (a number), busy (a share) and take-overs (a count).</summary>
internal sealed record LoopSample(
    int Connections,
    double Requests,
    double Received,
    double Sent,
    double Busy,
    double WakeUps,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] long? TakeOvers);

/// <summary>
/// Reads the transport's meter and counts the requests of each loop, for as long as it lives. Nothing of it runs, and no instrument is enabled, while
/// there is none.
/// </summary>
internal sealed class LoopObservation : IObserver<KeyValuePair<string, object?>>, IDisposable
{
    // Routing's event has the HttpContext. Those of the host would have it make an activity for each request.
    private const string RequestEvent = "Microsoft.AspNetCore.Routing.EndpointMatched";
    private const string TakeOvers = "evio.loop.takeovers";

    private static readonly string[] Instruments =
        ["evio.loop.connections", "evio.loop.io", "evio.loop.busy.time", "evio.loop.wakeups", TakeOvers];

    private readonly Counts[] _loops;
    private readonly MeterListener _listener = new();
    private readonly IDisposable _requests;
    private bool _hasTakeOvers;
    private long _taken = Stopwatch.GetTimestamp();

    public LoopObservation(int loops, IMeterFactory meters, DiagnosticListener diagnostics)
    {
        _loops = [.. Enumerable.Range(0, loops).Select(static _ => new Counts())];
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            // The factory tells this host's loops from any others in the process.
            if (instrument.Meter.Name == EventLoopGroup.MeterName
                && ReferenceEquals(instrument.Meter.Scope, meters)
                && Instruments.Contains(instrument.Name))
            {
                _hasTakeOvers |= instrument.Name == TakeOvers;
                listener.EnableMeasurementEvents(instrument);
            }
        };
        _listener.SetMeasurementEventCallback<int>((_, value, tags, _) => LoopOf(tags).Connections = value);
        _listener.SetMeasurementEventCallback<long>((instrument, value, tags, _) => LoopOf(tags).Count(instrument.Name, value, tags));
        _listener.SetMeasurementEventCallback<double>((_, value, tags, _) =>
            Interlocked.Add(ref LoopOf(tags).BusyMicroseconds, (long)(value * 1_000_000)));
        _listener.Start();
        _requests = diagnostics.Subscribe(this, static name => name == RequestEvent);
    }

    /// <summary>What has happened since the last call. From one thread at a time.</summary>
    public LoopSample[] Take()
    {
        _listener.RecordObservableInstruments();
        var now = Stopwatch.GetTimestamp();
        var seconds = Stopwatch.GetElapsedTime(_taken, now).TotalSeconds;
        _taken = now;
        return [.. _loops.Select(loop => new LoopSample(
            loop.Connections,
            Interlocked.Exchange(ref loop.Requests, 0) / seconds,
            Interlocked.Exchange(ref loop.Received, 0) / seconds,
            Interlocked.Exchange(ref loop.Sent, 0) / seconds,
            // A loop tells what it did once it waits again, so a long turn comes whole in the sample that it ends in.
            Math.Min(1, Interlocked.Exchange(ref loop.BusyMicroseconds, 0) / (seconds * 1_000_000)),
            Interlocked.Exchange(ref loop.WakeUps, 0) / seconds,
            _hasTakeOvers ? Interlocked.Exchange(ref loop.TakeOvers, 0) : null))];
    }

    void IObserver<KeyValuePair<string, object?>>.OnNext(KeyValuePair<string, object?> value)
    {
        if (value.Value is HttpContext context && context.Features.Get<IEventLoopFeature>() is { Loop.Index: var index })
        {
            Interlocked.Increment(ref _loops[index].Requests);
        }
    }

    void IObserver<KeyValuePair<string, object?>>.OnCompleted()
    {
    }

    void IObserver<KeyValuePair<string, object?>>.OnError(Exception error)
    {
    }

    public void Dispose()
    {
        _requests.Dispose();
        _listener.Dispose();
    }

    private Counts LoopOf(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        foreach (var (name, value) in tags)
        {
            if (name == "evio.loop.index")
            {
                return _loops[(int)value!];
            }
        }

        throw new InvalidOperationException("A measurement of a loop does not say which.");
    }

    /// <summary>One loop's, written to by whatever thread measures.</summary>
    private sealed class Counts
    {
        public int Connections;
        public long Requests;
        public long Received;
        public long Sent;
        public long BusyMicroseconds;
        public long WakeUps;
        public long TakeOvers;

        public void Count(string instrument, long value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            switch (instrument)
            {
                case "evio.loop.io":
                    Interlocked.Add(ref IsReceive(tags) ? ref Received : ref Sent, value);
                    break;
                case "evio.loop.wakeups":
                    Interlocked.Add(ref WakeUps, value);
                    break;
                case LoopObservation.TakeOvers:
                    Interlocked.Add(ref TakeOvers, value);
                    break;
            }
        }

        private static bool IsReceive(ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            foreach (var (name, value) in tags)
            {
                if (name == "network.io.direction")
                {
                    return value is "receive";
                }
            }

            return false;
        }
    }
}
