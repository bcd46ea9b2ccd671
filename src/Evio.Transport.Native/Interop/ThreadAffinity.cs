namespace Evio.Transport.Native.Interop;

/// <summary>Binds threads to processors.</summary>
internal static unsafe class ThreadAffinity
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
}
