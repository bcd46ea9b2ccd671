using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using Evio.Transport.Testing;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What Kestrel itself measures of one host's connections, from the moment this is made.</summary>
internal sealed class CollectedMetrics : IDisposable
{
    private const string Meter = "Microsoft.AspNetCore.Server.Kestrel";

    private readonly MeterListener _listener = new();
    private readonly ConcurrentQueue<string?> _endedConnections = new();
    private long _active;
    private long _queued;
    private long _rejected;

    public CollectedMetrics(TransportHost host)
    {
        var scope = host.Services.GetRequiredService<IMeterFactory>();
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Meter.Name == Meter && ReferenceEquals(instrument.Meter.Scope, scope))
            {
                listener.EnableMeasurementEvents(instrument);
            }
        };
        _listener.SetMeasurementEventCallback<double>((instrument, _, tags, _) =>
        {
            if (instrument.Name == "kestrel.connection.duration")
            {
                string? errorType = null;
                foreach (var (name, value) in tags)
                {
                    errorType = name == "error.type" ? (string?)value : errorType;
                }

                _endedConnections.Enqueue(errorType);
            }
        });
        _listener.SetMeasurementEventCallback<long>((instrument, value, _, _) =>
        {
            switch (instrument.Name)
            {
                case "kestrel.active_connections":
                    Interlocked.Add(ref _active, value);
                    break;
                case "kestrel.queued_connections":
                    Interlocked.Add(ref _queued, value);
                    break;
                case "kestrel.rejected_connections":
                    Interlocked.Add(ref _rejected, value);
                    break;
            }
        });
        _listener.Start();
    }

    /// <summary>The <c>error.type</c> of every connection that ended, null where it ended well.</summary>
    public IReadOnlyCollection<string?> EndedConnections => _endedConnections;

    public long ActiveConnections => Volatile.Read(ref _active);

    public long QueuedConnections => Volatile.Read(ref _queued);

    public long RejectedConnections => Volatile.Read(ref _rejected);

    public void Dispose() => _listener.Dispose();
}
