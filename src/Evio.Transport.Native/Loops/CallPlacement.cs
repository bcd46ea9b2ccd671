using System.Diagnostics;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Loops;

/// <summary>Decides on which thread a loop's call runs.</summary>
/// <remarks>
/// <code>
///  Scheduling     what the last call of the same kind cost            the next one runs
///  ThreadPool     -                                                   on the thread pool, in the loop's batch
///  Inline         -                                                   here
///  Adaptive       the caller has to keep the loop, or too many        on the thread pool
///                 threads are blocked
///                 little (Brief)                                      here; the monitor gives the loop away if it does not return
///                 its user went on on the thread pool (Awaiting)      on the thread pool, in the loop's batch, unless that is stuck
///                 time without the processor (Blocking)               here, after the loop was given to another thread; or on the pool if there is none
///                 the processor's time (CpuBound)                     the same; but only as many at once as there are processors, and the others wait for one
/// </code>
/// </remarks>
internal sealed class CallPlacement(EventLoop loop, LoopOwnership ownership, LoopThreads threads, LoopScheduling scheduling)
{
    /// <summary>
    /// A call that takes longer, after it has cost its thread the loop if it did, is expected to take long the next time. A thread that was only interrupted, on a
    /// busy machine, mostly comes back earlier.
    /// </summary>
    internal static readonly TimeSpan LongCall = TimeSpan.FromMilliseconds(4);

    /// <summary>Runs a call, or has it run. On the loop, outside of calls, or on any other thread.</summary>
    internal void Run(ILoopCall call)
    {
        switch (scheduling)
        {
            case LoopScheduling.ThreadPool:
                loop.Dispatcher!.Add(call);
                break;
            case LoopScheduling.Adaptive when ownership.IsExhausted || ownership.ThreadThatMayCall is null:
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

    /// <summary>Makes a call on the calling thread, which keeps its loop.</summary>
    private void RunKept(ILoopCall call)
    {
        LoopThread.NoteKeptCall(1);
        try
        {
            if (LoopThread.Current is { } thread && thread.Loop == loop)
            {
                thread.Calls.Leave(call.Run(), loop);
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

    /// <summary>Makes a call where it disturbs others the least, as far as the last time tells. By the owner.</summary>
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
            case LoopCallCost.Awaiting when !loop.Dispatcher!.IsStuck:
                loop.Dispatcher.Add(call);
                break;
            default:
                RunHere(call);
                break;
        }
    }

    /// <summary>Makes a call that is expected to be brief. By the owner, which may have lost the loop afterwards.</summary>
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

        thread.Calls.Leave(rest, loop);
    }

    /// <summary>Makes a call that took long the last time, on a thread that has no loop, or none any more.</summary>
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

    /// <summary>What a call cost, of which not all was its own: on a busy machine others had the processor meanwhile.</summary>
    internal static LoopCallCost CostOf(TimeSpan elapsed, ThreadTimes spent)
    {
        // What is taken one after the other may be interrupted in between: it waited for no longer than it did not run.
        var own = elapsed - (spent.Waited ?? TimeSpan.Zero);
        own = own > spent.Ran ? own : spent.Ran;
        return own <= LongCall ? LoopCallCost.Brief : spent.Ran > own * 0.75 ? LoopCallCost.CpuBound : LoopCallCost.Blocking;
    }

    /// <summary>Makes a call that is expected to compute, beside the loop, when there is a processor for it.</summary>
    private void RunCpuBound(ILoopCall call)
    {
        if (threads.Computing.BeginOrWait(call) is not { } place)
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

    /// <summary>Makes a call on this thread, which gives its loop to another one; or on the thread pool, if it has to keep it or there is no other one to be had.</summary>
    private void RunBeside(ILoopCall call, Action<ILoopCall> run)
    {
        var isHandedOff = false;
        try
        {
            isHandedOff = !ownership.IsExhausted && ownership.TryHandOff();
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
            LoopThread.Current!.Calls.Finish(loop);
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

    /// <summary>Makes a call that has begun to compute, and those that wait for its end.</summary>
    private void RunQueue(ILoopCall call)
    {
        for (var next = call; next is not null; next = threads.Computing.Next())
        {
            RunReported(next);
        }
    }

    /// <summary>Has those run that wait for a processor: the loop ends.</summary>
    internal void RunWaiting()
    {
        foreach (var call in threads.Computing.Withdraw())
        {
            // Timers are dropped, and so nobody would ask for them any more.
            ThreadPool.UnsafeQueueUserWorkItem(RunReported, call, preferLocal: false);
        }
    }

    private bool TryWithdraw(LinkedListNode<ILoopCall> place) => threads.Computing.TryWithdraw(place);
}
