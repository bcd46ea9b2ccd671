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

    /// <summary>How many threads may be blocked with <see cref="LoopScheduling.Adaptive"/>: in calls that did not return in time and cost them their loop.</summary>
    /// <remarks>
    /// At least 1; defaults to 64. When so many are, the loops run no further calls themselves but leave them to the thread pool, which gives threads to them as
    /// fast as it does to anything else that blocks, until half of the blocked threads are back. There are never more threads than this number and twice that of
    /// the loops together.
    /// </remarks>
    public int MaxBlockedThreads { get; set; } = 64;

    /// <summary>Called when <see cref="MaxBlockedThreads"/> is reached, with that number. On any thread; it must not block.</summary>
    /// <remarks>What this and the other notifications throw goes to <see cref="OnUnhandledException"/> once, and is ignored otherwise.</remarks>
    public Action<int>? OnThreadsSaturated { get; set; }

    /// <summary>Called when the loops run calls themselves again, after <see cref="OnThreadsSaturated"/>. On any thread; it must not block.</summary>
    public Action? OnThreadsRecovered { get; set; }

    /// <summary>Called when the system starts no further thread, with the reason. On any thread; it must not block.</summary>
    /// <remarks>
    /// With <see cref="LoopScheduling.Adaptive"/> a loop then keeps its thread, however long a call takes, and the loops leave further calls to the thread pool, until the system starts
    /// one: it is asked again about ten times a second. Called once for each time that lasts.
    /// </remarks>
    public Action<Exception>? OnThreadStartFailed { get; set; }

    /// <summary>Called when a loop has ended because its poller failed for good, with the reason. On the loop's thread; it must not block.</summary>
    /// <remarks>
    /// Its connections are closed and its listening sockets, too. New connections go to the other loops; when there is none left (<see cref="EventLoop.HasEnded"/>), nothing is accepted any more.
    /// Without a receiver the reason goes to <see cref="OnUnhandledException"/>.
    /// </remarks>
    public Action<EventLoop, Exception>? OnLoopFailed { get; set; }

    /// <summary>What the loops learn from which descriptors are ready.</summary>
    /// <remarks>Defaults to <see cref="PollerKind.Auto"/>.</remarks>
    public PollerKind Poller { get; set; } = PollerKind.Auto;

    /// <summary>The beginning of the names of the loops' threads; the loop's index follows.</summary>
    public string ThreadName { get; set; } = "Evio loop";

    /// <summary>The processors that the loops' threads are bound to: the n-th loop to the n-th entry, in turn. Empty (the default) binds none.</summary>
    /// <remarks>The numbers are those of sched_setaffinity(2). Has no effect on systems other than Linux.</remarks>
    public IReadOnlyList<int> LoopAffinity { get; set; } = [];

    /// <summary>Makes the meter "Evio.Transport", through which the loops report; <see langword="null"/>, the default, has the group make its own.</summary>
    /// <remarks>
    /// The instruments are those of <see cref="EventLoopGroup.MeterName"/>. A host's factory labels its instruments, so that those of several hosts in one
    /// process can be told apart, and disposes of the meter.
    /// </remarks>
    public IMeterFactory? MeterFactory { get; set; }

    /// <summary>Called on a loop with what a handler, a posted call or a timer threw.</summary>
    /// <remarks>
    /// The loop goes on; a connection whose handler threw is closed. Without a receiver the exception ends the process, as every unhandled
    /// exception in .NET does. What the receiver itself throws is written to <see cref="System.Diagnostics.Trace"/>, once.
    /// </remarks>
    public Action<EventLoop, Exception>? OnUnhandledException { get; set; }
}
