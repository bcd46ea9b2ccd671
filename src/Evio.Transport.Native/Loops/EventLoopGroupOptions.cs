using System.Diagnostics.Metrics;

namespace Evio.Transport.Native;

/// <summary>How a group of loops is made.</summary>
public sealed class EventLoopGroupOptions
{
    /// <summary>The largest number of loops in a group.</summary>
    public const int MaxLoopCount = 1024;

    /// <summary>The number of loops.</summary>
    /// <remarks>From 1 to <see cref="MaxLoopCount"/>; as in evio, 0 means 1 and −1 one per processor. Defaults to −1.</remarks>
    public int LoopCount { get; set; } = -1;

    /// <summary>Which loop becomes the owner of an accepted connection.</summary>
    /// <remarks>Defaults to <see cref="LoadBalance.Random"/>.</remarks>
    public LoadBalance LoadBalance { get; set; } = LoadBalance.Random;

    /// <summary>Where the loops run code that may block.</summary>
    /// <remarks>Defaults to <see cref="LoopScheduling.Inline"/>.</remarks>
    public LoopScheduling Scheduling { get; set; } = LoopScheduling.Inline;

    /// <summary>
    /// The number of threads that may be blocked with <see cref="LoopScheduling.Adaptive"/>, in calls that have cost them their loop.
    /// </summary>
    /// <remarks>
    /// At least 1; defaults to 64. When it is reached, the loops hand further calls to the thread pool, until half of the blocked threads
    /// have returned. The pool starts threads for these calls as fast as for any other work that blocks. There are never more threads than
    /// this number and twice the number of loops together.
    /// </remarks>
    public int MaxBlockedThreads { get; set; } = 64;

    /// <summary>Called when <see cref="MaxBlockedThreads"/> is reached, with that number. On any thread; it must not block.</summary>
    /// <remarks>
    /// The first exception of this and the other notifications goes to <see cref="OnUnhandledException"/>. Later ones are ignored.
    /// </remarks>
    public Action<int>? OnThreadsSaturated { get; set; }

    /// <summary>
    /// Called when the loops run calls themselves again, after <see cref="OnThreadsSaturated"/>. On any thread; it must not block.
    /// </summary>
    public Action? OnThreadsRecovered { get; set; }

    /// <summary>Called when the system starts no further thread, with the reason. On any thread; it must not block.</summary>
    /// <remarks>
    /// With <see cref="LoopScheduling.Adaptive"/> a loop then keeps its thread, however long a call takes, and the loops hand further calls
    /// to the thread pool. The group asks the system again about ten times a second, until it starts a thread. Called once for each time
    /// that lasts.
    /// </remarks>
    public Action<Exception>? OnThreadStartFailed { get; set; }

    /// <summary>
    /// Called when a loop ends because its poller has failed for good, with the reason. On the loop's thread; it must not block.
    /// </summary>
    /// <remarks>
    /// The loop's connections are closed. Its listening sockets move to another loop, or are closed if there is none. New connections go to
    /// the other loops. When none is left (<see cref="EventLoop.HasEnded"/>), no connection is accepted any more. Without a receiver the
    /// reason goes to <see cref="OnUnhandledException"/>.
    /// </remarks>
    public Action<EventLoop, Exception>? OnLoopFailed { get; set; }

    /// <summary>The kernel interface that tells the loops which descriptors are ready.</summary>
    /// <remarks>Defaults to <see cref="PollerKind.Auto"/>.</remarks>
    public PollerKind Poller { get; set; } = PollerKind.Auto;

    /// <summary>The beginning of the names of the loops' threads; a number follows.</summary>
    public string ThreadName { get; set; } = "Evio loop";

    /// <summary>
    /// The processors that the loops' threads are bound to. The n-th loop takes the n-th entry, in turn. Empty (the default) binds none.
    /// </summary>
    /// <remarks>
    /// The numbers are those of sched_setaffinity(2). Has no effect on systems other than Linux. With <see cref="LoopScheduling.Adaptive"/>,
    /// a call that was slow the last time runs beside its loop, on any processor that the process may use.
    /// </remarks>
    public IReadOnlyList<int> LoopAffinity { get; set; } = [];

    /// <summary>
    /// Creates the meter "Evio.Transport" of the loops. With <see langword="null"/>, the default, the group creates its own.
    /// </summary>
    /// <remarks>
    /// The instruments are those of <see cref="EventLoopGroup.MeterName"/>. A host's factory labels its instruments, so that the
    /// instruments of several hosts in one process can be distinguished. The factory disposes of the meter.
    /// </remarks>
    public IMeterFactory? MeterFactory { get; set; }

    /// <summary>Called on a loop with the exception of a handler, a posted call or a timer.</summary>
    /// <remarks>
    /// The loop goes on; a connection whose handler threw is closed. Without a receiver the exception ends the process, as every unhandled
    /// exception in .NET does. An exception of the receiver itself is written to <see cref="System.Diagnostics.Trace"/>, once.
    /// </remarks>
    public Action<EventLoop, Exception>? OnUnhandledException { get; set; }
}
