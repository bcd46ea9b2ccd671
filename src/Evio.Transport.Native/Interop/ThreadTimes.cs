using System.Buffers.Text;
using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>The times for which a thread has run or has waited for a processor. Time in which it was blocked does not count.</summary>
/// <param name="Ran">The time for which the thread has run: user and system time.</param>
/// <param name="Waited">
/// The time for which the thread has waited for a processor; <see langword="null"/> where the system does not report it.
/// </param>
internal readonly unsafe partial record struct ThreadTimes(TimeSpan Ran, TimeSpan? Waited)
{
    /// <summary>The times of the calling thread. To read them costs some ten microseconds.</summary>
    internal static ThreadTimes Current => new(ReadClock(), Platform.IsLinux ? ReadSchedulerStatistics() : null);

    /// <summary>The difference of two readings. A time that is not known in one of them is not known in the result.</summary>
    public static ThreadTimes operator -(ThreadTimes now, ThreadTimes then) => new(now.Ran - then.Ran, now.Waited - then.Waited);

    /// <summary>clock_gettime(2); zero on a system that does not count it.</summary>
    private static TimeSpan ReadClock()
    {
        // SAFETY: struct timespec of a 64-bit system is two words.
        var time = stackalloc long[2];
        return clock_gettime(Platform.CLOCK_THREAD_CPUTIME_ID, time) == 0 ? TimeSpan.FromSeconds(time[0]) + FromNanoseconds(time[1]) : TimeSpan.Zero;
    }

    /// <summary>
    /// Reads the second number of Linux's <c>/proc/thread-self/schedstat</c>: nanoseconds in the queue for a processor. The first number,
    /// nanoseconds on a processor, is not used: it lags behind by up to a tick while the thread runs.
    /// </summary>
    private static TimeSpan? ReadSchedulerStatistics()
    {
        try
        {
            using var file = File.OpenHandle("/proc/thread-self/schedstat");
            Span<byte> line = stackalloc byte[64];
            line = line[..RandomAccess.Read(file, line, 0)];
            return Utf8Parser.TryParse(line, out long _, out var length) && Utf8Parser.TryParse(line[(length + 1)..], out long waited, out _)
                ? FromNanoseconds(waited)
                : null;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // There is no /proc, the kernel does not have the file, or no descriptor is left.
            return null;
        }
    }

    private static TimeSpan FromNanoseconds(long count) => new(count / TimeSpan.NanosecondsPerTick);

    [LibraryImport("libc")]
    private static partial int clock_gettime(int clock, long* time);
}
