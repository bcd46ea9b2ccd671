using System.Buffers;
using System.Diagnostics.Metrics;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>What throws at random at a server that calls it, from a seed, until it is told to be calm.</summary>
internal sealed class Hostility(int seed)
{
    private readonly Random _random = new(seed);
    private volatile bool _isCalm;

    public void Calm() => _isCalm = true;

    /// <summary>Throws in one of so many calls.</summary>
    public void MayThrow(int calls, Func<Exception>? exception = null)
    {
        if (!_isCalm && IsChosen(calls))
        {
            throw exception?.Invoke() ?? new InvalidOperationException("On purpose.");
        }
    }

    private bool IsChosen(int calls)
    {
        lock (_random)
        {
            return _random.Next(calls) == 0;
        }
    }
}

/// <summary>Throws at the transport that logs; everybody else's logs are of no interest to it.</summary>
internal sealed class HostileLogs(Hostility hostility) : ILoggerProvider
{
    private const int CallsForEachThrow = 4;

    public ILogger CreateLogger(string categoryName) => new Logger(hostility, categoryName.StartsWith("Evio.Transport", StringComparison.Ordinal));

    public void Dispose()
    {
    }

    private sealed class Logger(Hostility hostility, bool isOfTransport) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull
        {
            MayThrow();
            return null;
        }

        public bool IsEnabled(LogLevel logLevel)
        {
            MayThrow();
            return isOfTransport;
        }

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) => MayThrow();

        private void MayThrow()
        {
            if (isOfTransport)
            {
                hostility.MayThrow(CallsForEachThrow);
            }
        }
    }
}

/// <summary>Throws at whoever reports to the loops' meter.</summary>
internal static class HostileMeasurements
{
    private const int MeasurementsForEachThrow = 20;

    public static MeterListener Listen(Hostility hostility)
    {
        var listener = new MeterListener
        {
            InstrumentPublished = static (instrument, listener) =>
            {
                if (instrument.Meter.Name == EventLoopGroup.MeterName)
                {
                    listener.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<int>((_, _, _, _) => hostility.MayThrow(MeasurementsForEachThrow));
        listener.SetMeasurementEventCallback<long>((_, _, _, _) => hostility.MayThrow(MeasurementsForEachThrow));
        listener.SetMeasurementEventCallback<double>((_, _, _, _) => hostility.MayThrow(MeasurementsForEachThrow));
        listener.Start();
        return listener;
    }
}

/// <summary>Pools that are out of memory at random, and strict otherwise.</summary>
internal sealed class HostilePools(Hostility hostility, StrictMemoryPoolFactory pools) : IMemoryPoolFactory<byte>
{
    private const int RentsForEachThrow = 20;

    public MemoryPool<byte> Create(MemoryPoolOptions? options = null) => new Pool(hostility, pools.Create(options));

    private sealed class Pool(Hostility hostility, MemoryPool<byte> pool) : MemoryPool<byte>
    {
        public override int MaxBufferSize => pool.MaxBufferSize;

        public override IMemoryOwner<byte> Rent(int minBufferSize = -1)
        {
            hostility.MayThrow(RentsForEachThrow, NewOutOfMemory);
            return pool.Rent(minBufferSize);
        }

        protected override void Dispose(bool disposing) => pool.Dispose();

#pragma warning disable CA2201 // What the runtime throws where there is no memory.
        private static OutOfMemoryException NewOutOfMemory() => new("On purpose.");
#pragma warning restore CA2201
    }
}
