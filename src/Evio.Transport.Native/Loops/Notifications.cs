using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>
/// Calls user code that is only notified: notifications, listeners of the meter. The first exception of such code in a group is reported,
/// and later ones are ignored. The calling thread keeps its loop meanwhile.
/// </summary>
/// <param name="receiver">Receives the report. Without it, or when it throws itself, the report is written to <see cref="Trace"/>.</param>
internal sealed class Notifications(Action<Exception>? receiver)
{
    private int _reported;

    /// <summary>Calls a notification, if there is one. From any thread.</summary>
    internal void Call<T>(Action<T>? notification, T argument)
    {
        if (notification is null)
        {
            return;
        }

        try
        {
            using (LoopHold.Begin())
            {
                notification(argument);
            }
        }
        catch (Exception exception)
        {
            ReportOnce(exception);
        }
    }

    /// <summary>Reports the exception of a notification, if it is the first one. From any thread.</summary>
    internal void ReportOnce(Exception exception)
    {
        if (Interlocked.Exchange(ref _reported, 1) != 0)
        {
            return;
        }

        try
        {
            using (LoopHold.Begin())
            {
                (receiver ?? Write)(exception);
            }
        }
        catch (Exception failure)
        {
            Write(exception);
            Write(failure);
        }
    }

    /// <summary>Writes an exception to the listeners of the trace, as the last resort.</summary>
    private static void Write(Exception exception)
    {
        try
        {
            Trace.TraceError("A notification of Evio.Transport's event loops has thrown: {0}", exception);
        }
        catch (Exception)
        {
            // A listener of the trace throws, too, and there is no other receiver.
        }
    }
}
