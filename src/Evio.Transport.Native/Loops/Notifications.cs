using System.Diagnostics;

namespace Evio.Transport.Native.Loops;

/// <summary>
/// Calls user code that only gets told something: notifications, listeners of the meter. Such code costs nobody anything: what it throws is reported once for a group and
/// otherwise ignored, and the calling thread keeps its loop meanwhile.
/// </summary>
/// <param name="receiver">Gets the report. Without it, and when it throws itself, the report is written to <see cref="Trace"/>.</param>
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

    /// <summary>Reports what a notification has thrown, if it is the first. From any thread.</summary>
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

    /// <summary>The last resort, which the process's own listeners get.</summary>
    private static void Write(Exception exception)
    {
        try
        {
            Trace.TraceError("A notification of Evio.Transport's event loops has thrown: {0}", exception);
        }
        catch (Exception)
        {
            // A listener of the trace throws, too, and there is nobody else to tell.
        }
    }
}
