using System.Buffers.Text;
using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>What a thread has done with its time, as far as it was not blocked.</summary>
/// <param name="Ran">For how long it has run.</param>
/// <param name="Waited">For how long it could have run, but others did: zero where the system does not tell.</param>
internal readonly unsafe partial record struct ThreadTimes(TimeSpan Ran, TimeSpan Waited)
{
    // time.h; Darwin's is 16, FreeBSD's 14.
    private static readonly int CLOCK_THREAD_CPUTIME_ID = Platform.IsLinux ? 3 : Platform.IsFreeBsd ? 14 : 16;

    /// <summary>The times of the calling thread. To take them costs some ten microseconds.</summary>
    internal static ThreadTimes Current => TryReadSchedulerStatistics(out var times) ? times : new ThreadTimes(ReadClock(), TimeSpan.Zero);

    public static ThreadTimes operator -(ThreadTimes left, ThreadTimes right) => new(left.Ran - right.Ran, left.Waited - right.Waited);

    /// <summary>Reads Linux's <c>/proc/thread-self/schedstat</c>: nanoseconds on a processor, nanoseconds in the queue for one, and more.</summary>
    private static bool TryReadSchedulerStatistics(out ThreadTimes times)
    {
        times = default;
        if (!Platform.IsLinux)
        {
            return false;
        }

        try
        {
            using var file = File.OpenHandle("/proc/thread-self/schedstat");
            Span<byte> line = stackalloc byte[64];
            line = line[..RandomAccess.Read(file, line, 0)];
            if (!Utf8Parser.TryParse(line, out long ran, out var length) || !Utf8Parser.TryParse(line[(length + 1)..], out long waited, out _))
            {
                return false;
            }

            times = new ThreadTimes(FromNanoseconds(ran), FromNanoseconds(waited));
            return true;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // No /proc here, or a kernel without them, or no descriptor left: then the clock has to do.
            return false;
        }
    }

    /// <summary>User and system time, clock_gettime(2); zero on a system that does not count it.</summary>
    private static TimeSpan ReadClock()
    {
        // SOUND: struct timespec of a 64-bit system is two words.
        var time = stackalloc long[2];
        return clock_gettime(CLOCK_THREAD_CPUTIME_ID, time) == 0 ? TimeSpan.FromSeconds(time[0]) + FromNanoseconds(time[1]) : TimeSpan.Zero;
    }

    private static TimeSpan FromNanoseconds(long count) => new(count / TimeSpan.NanosecondsPerTick);

    [LibraryImport("libc")]
    private static partial int clock_gettime(int clock, long* time);
}
