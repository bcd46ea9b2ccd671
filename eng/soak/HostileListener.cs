using System.Diagnostics.Metrics;
using Evio.Transport.Native;

namespace Evio.Soak;

/// <summary>Listens to the loops' meter, and throws at random at whatever reports to it.</summary>
internal static class HostileListener
{
    private const int MeasurementsForEachThrow = 300;

    public static MeterListener Start(Mischief mischief)
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
        listener.SetMeasurementEventCallback<int>((instrument, _, _, _) => mischief.MayThrow(MeasurementsForEachThrow, instrument.Name));
        listener.SetMeasurementEventCallback<long>((instrument, _, _, _) => mischief.MayThrow(MeasurementsForEachThrow, instrument.Name));
        listener.SetMeasurementEventCallback<double>((instrument, _, _, _) => mischief.MayThrow(MeasurementsForEachThrow, instrument.Name));
        listener.Start();
        return listener;
    }
}
