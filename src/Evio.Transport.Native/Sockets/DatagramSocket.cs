using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// One bound UDP descriptor on one loop. A pass of the loop costs one recvmmsg(2) for up to <see cref="DatagramBatch.Capacity"/> datagrams
/// and one sendmmsg(2) for their replies; what is left in the kernel is reported again, level-triggered, after the loop's other descriptors
/// had their turn.
/// </summary>
internal sealed class DatagramSocket(EventLoop loop, int descriptor, EndPoint localEndPoint) : IPollTarget, IDatagramChannel
{
    /// <summary>How many receives may fail one after the other before the socket is left alone for <see cref="Pause"/>.</summary>
    internal const int MaxFailures = 64;

    /// <summary>How long a socket is left alone whose every receive fails, since it is reported at once again.</summary>
    internal static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);

    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private IDatagramHandler? _handler;
    private DatagramBatch? _batch;
    private ulong _token;
    private int _current = -1;
    private int _closing;
    private int _failures;
    private LoopTimer? _pause;
    private long _bytesSent;

    public EventLoop Loop => loop;

    public EndPoint LocalEndPoint => localEndPoint;

    public long BytesSent => Volatile.Read(ref _bytesSent);

    /// <summary>The number of recvmmsg(2) that brought datagrams. On the loop.</summary>
    internal long Receives { get; private set; }

    /// <summary>The number of replies that the kernel did not take. On the loop.</summary>
    internal long DroppedReplies { get; private set; }

    public EndPoint? GetDestination() => _current >= 0 ? SocketAddresses.ToEndPoint(_batch!.GetPacketInfo(_current), localEndPoint) : null;

    public EndPoint? GetSender() => _current >= 0 ? SocketAddresses.ToEndPoint(_batch!.GetSender(_current)) : null;

    /// <summary>Begins to receive. To be called once, on the loop.</summary>
    /// <exception cref="SocketException">The kernel refused to watch the socket, for want of memory for example.</exception>
    internal void Start(IDatagramHandler handler)
    {
        if (_closing != 0)
        {
            return;
        }

        _handler = handler;
        _batch = new DatagramBatch(isTold: localEndPoint is IPEndPoint bound && SocketDescriptors.IsAny(bound.Address));
        using var owner = loop.Ownership.Enter();
        _token = loop.Add(owner, this);
        var errno = loop.RegisterListener(owner, _token, descriptor);
        if (errno != 0)
        {
            throw Errno.ToException(errno, $"{localEndPoint} could not be registered with its loop (errno {errno}).");
        }
    }

    /// <summary>Closes the descriptor; datagrams that still wait in the kernel are lost. From any thread.</summary>
    /// <returns>A task that completes when it is closed and the handler will not be called any more.</returns>
    internal Task CloseAsync()
    {
        if (!loop.TryPostWhileEnding(static socket => ((DatagramSocket)socket!).Close(), this))
        {
            // The loop has ended, and its table with it.
            Close();
        }

        return _closed.Task;
    }

    void IPollTarget.OnReady(ReadyEvents events)
    {
        var batch = _batch!;
        if (!batch.Receive(descriptor).IsSuccess)
        {
            // A datagram with a wrong checksum is reported and then not there (select(2)); an error that waited on the socket is collected by
            // the receive and concerns no datagram that is still to come; and after a signal the loop asks again.
            if (++_failures == MaxFailures)
            {
                BackOff();
            }

            return;
        }

        _failures = 0;
        Receives++;

        // The batch is this thread's until its end: nothing that the handler or a listener of metrics reaches may give the loop away.
        using var hold = LoopHold.Begin();
        try
        {
            for (_current = 0; _current < batch.Count && _closing == 0; _current++)
            {
                if (!batch.HasReplyRoom)
                {
                    SendReplies(batch);
                }

                var datagram = batch.GetDatagram(_current);
                loop.Meter.Received(datagram.Length);
                var length = _handler!.OnDatagram(datagram, batch.ReplyRoom);
                if (length > 0)
                {
                    batch.AddReply(_current, length);
                }
            }
        }
        finally
        {
            _current = -1;
            SendReplies(batch);
        }
    }

    /// <summary>Stops to watch the socket for a while: what fails so often fails for ever, or for long.</summary>
    private void BackOff()
    {
        _failures = 0;
        using var owner = loop.Ownership.Enter();
        loop.Deregister(owner, descriptor);
        _pause = loop.ScheduleInternal(Pause, static socket => ((DatagramSocket)socket!).EndBackOff(), this);
    }

    private void EndBackOff()
    {
        // ENOMEM, ENOSPC (epoll_ctl(2)) pass.
        using var owner = loop.Ownership.Enter();
        if (_closing == 0 && loop.RegisterListener(owner, _token, descriptor) != 0)
        {
            _pause = loop.ScheduleInternal(Pause, static socket => ((DatagramSocket)socket!).EndBackOff(), this);
        }
    }

    /// <summary>Offers the replies to the kernel, each once. One that it has no room for is lost, as UDP permits; nobody waits.</summary>
    /// <remarks>
    /// One that cannot leave from the address that its datagram came to (a broadcast's, or an address that has gone meanwhile) is offered once more, for the
    /// system to choose the source. A sender that takes answers from any address gets it.
    /// </remarks>
    private void SendReplies(DatagramBatch batch)
    {
        var next = 0;

        // The descriptor of a socket that was closed may be somebody else's.
        while (next < batch.ReplyCount && _closing == 0)
        {
            var result = batch.Send(descriptor, next);
            if (result.IsSuccess)
            {
                // After a short count the next call says what is wrong with the first that was not taken.
                for (var end = next + result.Count; next < end; next++)
                {
                    var length = batch.GetReplyLength(next);
                    _bytesSent += length;
                    loop.Meter.Sent(length);
                }
            }
            else if (result.WouldBlock || result.Error == SocketError.NoBufferSpaceAvailable)
            {
                DroppedReplies += batch.ReplyCount - next;
                break;
            }
            else if (result.Error != SocketError.Interrupted && !batch.TryForgetSource(next))
            {
                // The sender cannot be reached (ENETUNREACH, EHOSTUNREACH, EPERM of a firewall...); the others may be.
                DroppedReplies++;
                next++;
            }
        }

        batch.ClearReplies();
    }

    void IPollTarget.OnFault(Exception exception)
    {
        // The handler lets no exception of user code out. Datagrams that still wait are reported again.
    }

    void IPollTarget.OnLoopStopping() => Close();

    private void Close()
    {
        if (Interlocked.Exchange(ref _closing, 1) != 0)
        {
            return;
        }

        _pause?.Cancel();
        if (_handler is not null)
        {
            using var owner = loop.Ownership.Enter();
            loop.Remove(owner, _token);
        }

        _ = Libc.close(descriptor);
        _closed.SetResult();
    }
}
