using System.Diagnostics;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Loops;

/// <summary>Decides on which thread a loop's call runs.</summary>
/// <remarks>
/// <code>
///  Scheduling   what the connection's last call cost           the next one runs
///  ThreadPool   -                                              on the thread pool, in the loop's batch
///  Inline       -                                              here
///  Adaptive     the caller is not the owner, is in a call or   on the thread pool
///               under a hold, or the group is saturated
///               little (Brief)                                 here; the monitor retakes the loop if it does not return
///               little; the code that awaits it has gone on    on the thread pool, in the loop's batch; here if the pool
///               on the pool three times in a row (Awaiting)    has no thread for it
///               time, mostly waiting (Blocking)                here, after the loop was handed off; on the pool if there
///                                                              is no thread for that
///               time of the processor (CpuBound)               the same, with a limit (CpuBoundCalls); others are queued
/// </code>
/// </remarks>
internal sealed class CallPlacement(EventLoop loop, LoopOwnership ownership, LoopThreads threads, LoopScheduling scheduling)
{
    /// <summary>
    /// A call that runs for longer than this after it has lost its loop is treated as slow the next time: a thread that was only preempted
    /// on a busy machine mostly returns earlier. A call that runs beside the loop is measured from its beginning.
    /// </summary>
    internal static readonly TimeSpan LongCall = TimeSpan.FromMilliseconds(4);

    /// <summary>Runs a call, or has another thread run it. On the loop outside of calls, or on any other thread.</summary>
    internal void Run(ILoopCall call)
    {
        switch (scheduling)
        {
            case LoopScheduling.ThreadPool:
                loop.Dispatcher!.Add(call);
                break;
            case LoopScheduling.Adaptive when ownership.IsSaturated || ownership.ThreadThatMayCall is null:
                ThreadPool.UnsafeQueueUserWorkItem(call, preferLocal: false);
                break;
            case LoopScheduling.Adaptive:
                RunByCost(call);
                break;
            default:
                RunKept(call);
                break;
        }
    }

    /// <summary>Runs a call on the calling thread, which keeps its loop.</summary>
    private void RunKept(ILoopCall call)
    {
        LoopThread.NoteKeptCall(1);
        try
        {
            if (LoopThread.Current is { } thread && thread.Loop == loop)
            {
                thread.Calls.Add(call.Run(), loop);
            }
            else
            {
                call.Execute();
            }
        }
        finally
        {
            LoopThread.NoteKeptCall(-1);
        }
    }

    /// <summary>Runs a call where its last cost says. By the owner.</summary>
    private void RunByCost(ILoopCall call)
    {
        switch (call.Cost)
        {
            case LoopCallCost.CpuBound:
                RunCpuBound(call);
                break;
            case LoopCallCost.Blocking:
                RunBeside(call, RunMeasured);
                break;
            case LoopCallCost.Awaiting when !loop.Dispatcher!.IsPoolStarved:
                loop.Dispatcher.Add(call);
                break;
            default:
                RunHere(call);
                break;
        }
    }

    /// <summary>Runs a call that is expected to be brief. By the owner, which may have lost the loop afterwards.</summary>
    private void RunHere(ILoopCall call)
    {
        loop.HasMadeCalls = true;
        var thread = LoopThread.Current!;
        IThreadPoolWorkItem? rest;
        ownership.BeginCall(thread);
        try
        {
            rest = call.Run();
        }
        finally
        {
            if (!ownership.TryReturn(thread))
            {
                call.Cost = Stopwatch.GetElapsedTime(thread.BlockedSince) > LongCall ? LoopCallCost.Blocking : LoopCallCost.Brief;
            }
        }

        thread.Calls.Add(rest, loop);
    }

    /// <summary>Runs a call that was slow the last time, and measures it. On a thread that owns no loop.</summary>
    private static void RunMeasured(ILoopCall call)
    {
        var before = ThreadTimes.Current;
        var began = Stopwatch.GetTimestamp();
        try
        {
            call.Execute();
        }
        finally
        {
            call.Cost = CostOf(Stopwatch.GetElapsedTime(began), ThreadTimes.Current - before);
        }
    }

    /// <summary>What a call cost, without the time for which its thread waited for a processor.</summary>
    internal static LoopCallCost CostOf(TimeSpan elapsed, ThreadTimes spent)
    {
        // The three times are not read at once. The wait was at most as long as the thread did not run.
        var own = elapsed - (spent.Waited ?? TimeSpan.Zero);
        own = own > spent.Ran ? own : spent.Ran;
        return own <= LongCall ? LoopCallCost.Brief : spent.Ran > own * 0.75 ? LoopCallCost.CpuBound : LoopCallCost.Blocking;
    }

    /// <summary>Runs a CPU-bound call beside the loop, or queues it until one of those that run has ended.</summary>
    private void RunCpuBound(ILoopCall call)
    {
        if (threads.CpuBound.BeginOrWait(call) is not { } place)
        {
            RunBeside(call, RunQueue);
            return;
        }

        _ = loop.ScheduleInternal(
            CpuBoundCalls.MaxWaitForProcessor,
            static state =>
            {
                var (placement, place) = ((CallPlacement, LinkedListNode<ILoopCall>))state!;
                if (placement.TryWithdraw(place))
                {
                    placement.RunBeside(place.Value, placement.RunReported);
                }
            },
            (this, place));
    }

    /// <summary>
    /// Hands the loop off and runs a call on this thread; or has the thread pool run it, if this thread must keep the loop or there is no
    /// thread for it.
    /// </summary>
    private void RunBeside(ILoopCall call, Action<ILoopCall> run)
    {
        var isHandedOff = false;
        try
        {
            isHandedOff = !ownership.IsSaturated && ownership.TryHandOff();
        }
        finally
        {
            if (!isHandedOff)
            {
                ThreadPool.UnsafeQueueUserWorkItem(run, call, preferLocal: false);
            }
        }

        if (isHandedOff)
        {
            var thread = LoopThread.Current!;
            thread.Calls.Flush(loop);
            thread.Unbind();
            run(call);
        }
    }

    private void RunReported(ILoopCall call)
    {
        try
        {
            RunMeasured(call);
        }
        catch (Exception exception)
        {
            loop.Report(exception);
        }

        AmbientState.Restore();
    }

    /// <summary>Runs a CPU-bound call, and then those that were queued behind it.</summary>
    private void RunQueue(ILoopCall call)
    {
        for (var next = call; next is not null; next = threads.CpuBound.Next())
        {
            RunReported(next);
        }
    }

    /// <summary>Has the thread pool run the calls that are queued, because the loop ends.</summary>
    internal void MoveQueuedToPool()
    {
        foreach (var call in threads.CpuBound.Withdraw())
        {
            // The timers that would withdraw them are dropped.
            ThreadPool.UnsafeQueueUserWorkItem(RunReported, call, preferLocal: false);
        }
    }

    private bool TryWithdraw(LinkedListNode<ILoopCall> place) => threads.CpuBound.TryWithdraw(place);
}
