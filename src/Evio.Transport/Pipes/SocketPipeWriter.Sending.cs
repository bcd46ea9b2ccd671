using System.Diagnostics;
using System.Runtime.CompilerServices;
using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <content>The socket's side: what is flushed, events, sending, and the end.</content>
internal sealed partial class SocketPipeWriter
{
    /// <summary>The number of sends that a thread makes for one connection after user code, before it leaves the rest.</summary>
    private const int MaxSendsForOthers = 2;

    // Of the sender: the blocks from _head to _last. _pending of their bytes, from _headIndex on, are flushed and not yet taken by the
    // kernel.
    private BufferSegment? _head;
    private BufferSegment? _last;
    private int _headIndex;
    private long _pending;

    // The block among them that the writing thread may still be filling, or null. The sender does not release it.
    private BufferSegment? _shared;

    private bool _sending;
    private bool _awaitsWritable;
    private bool _writableDuringSend;
    private bool _finished;

    /// <summary>Takes note of events, under the gate.</summary>
    /// <returns>Whether the caller now owns the sending side, and has to call <see cref="Send()"/>.</returns>
    internal bool Note(ReadyEvents events)
    {
        if ((events & (ReadyEvents.Writable | ReadyEvents.HangUp | ReadyEvents.Error)) == 0)
        {
            return false;
        }

        _writableDuringSend = true;
        if (!_awaitsWritable)
        {
            return false;
        }

        _awaitsWritable = false;
        return TryBeginSend();
    }

    /// <summary>
    /// Sends, as the owner of <see cref="_sending"/>, until all is sent or the kernel takes no more. Then it gives the ownership back. A
    /// flush that may continue runs its caller's code in here, on this thread or on the thread pool as the options say.
    /// </summary>
    internal void Send() => Send(Sender.User);

    /// <inheritdoc cref="Send()"/>
    /// <returns>Whether the monitor has left something for its next tick.</returns>
    private bool Send(Sender sender)
    {
        PendingFlush? ended = null;
        IoResult result;
        bool again;
        bool isClosed;
        var isLeft = false;
        var isLeftToPool = false;
        var sends = 0;
        var next = DeferredFlush.Preparation.None;
        do
        {
            result = SendOnce(out var offered);
            using (_connection.EnterGateUninterrupted())
            {
                again = CompleteSend(result, offered);
                if (again && sender == Sender.Monitor && _deferred!.TryWatchAgain())
                {
                    // A writer that is as fast would keep the monitor sending for ever.
                    isLeft = true;
                    again = _sending = false;
                }
                else if (again && sender == Sender.OtherConnection && ++sends == MaxSendsForOthers)
                {
                    // Likewise. No thread owns the sending side meanwhile. If the pool has no thread, the monitor sends the rest.
                    next = _deferred!.ReleaseToAnyThread();
                    isLeftToPool = true;
                    again = _sending = false;
                }

                isClosed = _closed;
                if (_waiting && !isClosed && _pending < _resumeBelow)
                {
                    QueueUnawaitedCompletion(ended);
                    ended = EndWait();
                }
            }
        }
        while (again);

        if (sender == Sender.User)
        {
            FinishSend(result, isClosed, ended);
        }
        else
        {
            FinishSendOnPool(result, isClosed, ended);
        }

        if (isLeftToPool)
        {
            ThreadPool.UnsafeQueueUserWorkItem(static writer => writer.SendAllDeferred(), this, preferLocal: false);
            Defer(next);
        }

        return isLeft;
    }

    private void FinishSendOnPool(IoResult result, bool isClosed, PendingFlush? ended)
    {
        if (isClosed || ended is not null || Volatile.Read(ref _completed) || (!result.IsSuccess && !result.WouldBlock))
        {
            ThreadPool.UnsafeQueueUserWorkItem(
                static send => send.Writer.FinishSend(send.Result, send.IsClosed, send.Ended), (Writer: this, Result: result, IsClosed: isClosed, Ended: ended), preferLocal: false);
        }
    }

    /// <summary>Does what follows the last send, after the ownership of the sending side was given back.</summary>
    private void FinishSend(IoResult result, bool isClosed, PendingFlush? ended)
    {
        if (isClosed)
        {
            // The connection's end has waited for the blocks, which are released now.
            _connection.SignalEndOnPool();
        }

        if (!result.IsSuccess && !result.WouldBlock)
        {
            _connection.OnSendFailed(_connection.ToException(result.Error));
        }

        FinishIfDrained();
        if (ended is not null)
        {
            _connection.Socket.Loop.Invoke(ended);
        }
    }

    /// <summary>
    /// Ends the output: the connection is gone, buffered bytes are discarded, and flushes return "completed" from now on.
    /// </summary>
    internal void Close()
    {
        PendingFlush ended;
        lock (_gate)
        {
            if (_closed)
            {
                return;
            }

            _closed = true;
            _awaitsWritable = false;
            _deferred?.End();
            _ = TryTakeParkedTail();
            DiscardFlushed();
            if (_sending)
            {
                _connection.AddPendingEnd();
            }

            if (!_waiting)
            {
                return;
            }

            ended = EndWait();
        }

        ThreadPool.UnsafeQueueUserWorkItem(ended, preferLocal: false);
    }

    /// <summary>Takes the ownership of the sending side if there is something to send and room for it. Under the gate.</summary>
    private bool TryBeginSend()
    {
        if (_sending || _awaitsWritable || _closed || _pending == 0)
        {
            return false;
        }

        _deferred?.End();
        return _sending = true;
    }

    private IoResult SendOnce(out long offered)
    {
        // While this thread owns the sending side, no other thread moves _head, and the flushed bytes stay as they are. _pending may grow.
        var left = Volatile.Read(ref _pending);
        var head = _head!;
        var first = head.Filled(_headIndex, left);
        offered = first.Length;
        if (offered == left || head.NextSegment is null)
        {
            Volatile.Write(ref _writableDuringSend, false);
            return _connection.Socket.Send(first.Span);
        }

        var memories = new MemoryArray();
        memories[0] = first;
        var count = 1;
        var segment = head.NextSegment;
        while (segment is not null && offered < left && count < StreamSocket.MaxBuffers)
        {
            memories[count] = segment.Filled(0, left - offered);
            offered += memories[count++].Length;
            segment = segment.NextSegment;
        }

        Volatile.Write(ref _writableDuringSend, false);
        return _connection.Socket.Send(((ReadOnlySpan<ReadOnlyMemory<byte>>)memories)[..count]);
    }

    /// <summary>Counts the result of a send, and gives the ownership back if that was the last one for now. Under the gate.</summary>
    /// <returns>Whether the owner goes on sending.</returns>
    private bool CompleteSend(IoResult result, long offered)
    {
        if (_closed)
        {
            _sending = false;
            DiscardFlushed();
            return false;
        }

        if (!result.IsSuccess && !result.WouldBlock)
        {
            // The connection closes this writer next.
            _sending = false;
            return false;
        }

        _pending -= result.Count;
        ReleaseSent(result.Count);
        if (_pending == 0)
        {
            _sending = false;
            if (TryTakeParkedTail())
            {
                ReleaseSent(0);
            }
        }
        else if (result.Count < offered && !_writableDuringSend)
        {
            _sending = false;
            _awaitsWritable = true;
        }

        return _sending;
    }

    /// <summary>Advances by what was sent, and releases the blocks that are done with. Under the gate.</summary>
    private void ReleaseSent(int count)
    {
        _headIndex += count;
        while (_head is { } head && head != _shared && _headIndex >= head.Length)
        {
            _headIndex -= head.Length;
            _head = head.NextSegment;
            _blocks.Close(head);
        }

        if (_head is null)
        {
            Debug.Assert(_headIndex == 0 && _pending == 0);
            _last = null;
        }
    }

    /// <summary>Releases all blocks but the shared one. If they are being sent from, the sender releases them. Under the gate.</summary>
    private void DiscardFlushed()
    {
        if (_sending)
        {
            return;
        }

        _pending = 0;
        _headIndex = 0;
        while (_head is { } head && head != _shared)
        {
            _head = head.NextSegment;
            _blocks.Close(head);
        }

        if (_head is null)
        {
            _last = null;
        }
    }

    private void FinishIfDrained()
    {
        // Without the lock, for the many sends before the last one. A sender sees a Complete that came during its send, because Complete
        // has had the lock before the sender's CompleteSend.
        if (!Volatile.Read(ref _completed))
        {
            return;
        }

        lock (_gate)
        {
            if (!_completed || _finished || _closed || _sending || _pending > 0)
            {
                return;
            }

            _finished = true;
        }

        _connection.OnOutputFinished();
    }

    /// <summary>The kind of thread that sends.</summary>
    private enum Sender : byte
    {
        /// <summary>A thread of the connection's user code, or the loop.</summary>
        User,

        /// <summary>
        /// A thread that may be in the middle of another connection's user code. Whatever may run user code is left to the thread pool.
        /// </summary>
        OtherConnection,

        /// <summary>
        /// The monitor, on which other connections depend. As for <see cref="OtherConnection"/>; and it sends what there was, and not what
        /// comes meanwhile.
        /// </summary>
        Monitor,
    }

    [InlineArray(StreamSocket.MaxBuffers)]
    private struct MemoryArray
    {
        private ReadOnlyMemory<byte> _first;
    }
}
