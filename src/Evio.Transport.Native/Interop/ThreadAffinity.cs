using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>Binds threads to processors.</summary>
internal static unsafe partial class ThreadAffinity
{
    /// <summary>The largest processor number plus one: <c>CPU_SETSIZE</c> of sched.h.</summary>
    private const int MaxProcessors = 1024;

    /// <summary>Binds the calling thread to a processor (sched_setaffinity(2)). Does nothing on systems other than Linux.</summary>
    /// <exception cref="ArgumentException">There is no such processor, or this process may not use it.</exception>
    internal static void BindTo(int processor)
    {
        if (!Platform.IsLinux)
        {
            return;
        }

        if (processor is < 0 or >= MaxProcessors)
        {
            throw new ArgumentException($"A loop's thread cannot be bound to processor {processor} (LoopAffinity): there is none with that number.");
        }

        // SAFETY: the number was checked above, so the bit is within the mask.
        var mask = stackalloc ulong[MaxProcessors / 64];
        new Span<ulong>(mask, MaxProcessors / 64).Clear();
        mask[processor / 64] = 1UL << (processor % 64);
        if (Libc.sched_setaffinity(0, MaxProcessors / 8, mask) < 0)
        {
            throw new ArgumentException($"A loop's thread cannot be bound to processor {processor} (LoopAffinity, errno {Errno.Last}).");
        }
    }

    /// <summary>The processors that the calling thread may run on, for <see cref="Restore"/> (sched_getaffinity(2)).</summary>
    /// <returns><see langword="null"/> on systems other than Linux, and when the system does not tell.</returns>
    internal static ulong[]? Get()
    {
        if (!Platform.IsLinux)
        {
            return null;
        }

        var mask = new ulong[MaxProcessors / 64];
        fixed (ulong* start = mask)
        {
            // SAFETY: the array is pinned for the call, which writes no more than its size.
            return sched_getaffinity(0, MaxProcessors / 8, start) < 0 ? null : mask;
        }
    }

    /// <summary>Lets the calling thread run on the processors of <see cref="Get"/>. If the system refuses, the thread stays bound.</summary>
    internal static void Restore(ulong[] mask)
    {
        fixed (ulong* start = mask)
        {
            // SAFETY: the array is pinned for the call, which only reads it.
            _ = Libc.sched_setaffinity(0, MaxProcessors / 8, start);
        }
    }

    // Reads what the thread has, and changes nothing: not one of the calls whose failures the library has to survive.
    [LibraryImport("libc")]
    private static partial int sched_getaffinity(int thread, nuint size, ulong* mask);
}
