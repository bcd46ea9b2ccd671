using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Sockets;

/// <summary>
/// One bound UDP descriptor on one loop. In a pass, the loop makes one recvmmsg(2) for up to <see cref="DatagramBatch.Capacity"/> datagrams
/// and one sendmmsg(2) for their replies. Datagrams that are left in the kernel are reported again (level-triggered), after the loop has
/// handled its other descriptors.
/// </summary>
internal sealed class DatagramSocket(EventLoop loop, int descriptor, EndPoint localEndPoint) : IPollTarget, IDatagramChannel
{
    /// <summary>The number of receives in a row that may fail before the socket is not watched for <see cref="Pause"/>.</summary>
    internal const int MaxFailures = 64;

    /// <summary>
    /// The time for which a socket whose every receive fails is not watched. Otherwise it would be reported again at once.
    /// </summary>
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

    /// <summary>The number of calls of recvmmsg(2) that brought datagrams. On the loop.</summary>
    internal long Receives { get; private set; }

    /// <summary>The number of replies that the kernel did not take. On the loop.</summary>
    internal long DroppedReplies { get; private set; }

    public EndPoint? GetDestination() => _current >= 0 ? SocketAddresses.ToEndPoint(_batch!.GetPacketInfo(_current), localEndPoint) : null;

    public EndPoint? GetSender() => _current >= 0 ? SocketAddresses.ToEndPoint(_batch!.GetSender(_current)) : null;

    /// <summary>Begins to receive. To be called once, on the loop.</summary>
    /// <exception cref="SocketException">The kernel refused to watch the socket, for lack of memory for example.</exception>
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
            // The loop has ended, and its table of registrations with it.
            Close();
        }

        return _closed.Task;
    }

    void IPollTarget.OnReady(ReadyEvents events)
    {
        var batch = _batch!;
        if (!batch.Receive(descriptor).IsSuccess)
        {
            // A datagram with a wrong checksum is reported, but is not there at the receive (select(2)). A pending error of the socket is
            // taken by the receive, and concerns no later datagram. After a signal the loop tries again.
            if (++_failures == MaxFailures)
            {
                BackOff();
            }

            return;
        }

        _failures = 0;
        Receives++;

        // This thread uses the batch until its end. So no code that the handler or a metrics listener calls may give the loop away.
        using var hold = LoopHold.Begin();
        try
        {
            for (_current = 0; _current < batch.Count && _closing == 0; _current++)
            {
                if (!batch.HasReplySpace)
                {
                    SendReplies(batch);
                }

                var datagram = batch.GetDatagram(_current);
                loop.Meter.Received(datagram.Length);
                var length = _handler!.OnDatagram(datagram, batch.ReplyBuffer);
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

    /// <summary>Stops watching the socket for <see cref="Pause"/>. So many failures in a row have a lasting cause.</summary>
    private void BackOff()
    {
        _failures = 0;
        using var owner = loop.Ownership.Enter();
        loop.Deregister(owner, descriptor);
        _pause = loop.ScheduleInternal(Pause, static socket => ((DatagramSocket)socket!).EndBackOff(), this);
    }

    private void EndBackOff()
    {
        // ENOMEM and ENOSPC (epoll_ctl(2)) pass, so the loop tries again later.
        using var owner = loop.Ownership.Enter();
        if (_closing == 0 && loop.RegisterListener(owner, _token, descriptor) != 0)
        {
            _pause = loop.ScheduleInternal(Pause, static socket => ((DatagramSocket)socket!).EndBackOff(), this);
        }
    }

    /// <summary>
    /// Offers each reply to the kernel once. A reply that the kernel has no room for is lost, as UDP permits. The loop does not wait.
    /// </summary>
    /// <remarks>
    /// A reply cannot leave from a broadcast address, or from an address that was removed meanwhile. If its datagram came to such an
    /// address, the reply is offered once more, and the system chooses its source. A sender that takes answers from any address gets it.
    /// </remarks>
    private void SendReplies(DatagramBatch batch)
    {
        var next = 0;

        // After a close the descriptor's number may belong to another file.
        while (next < batch.ReplyCount && _closing == 0)
        {
            var result = batch.Send(descriptor, next);
            if (result.IsSuccess)
            {
                // After a short count, the next call returns the error of the first reply that was not taken.
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
            else if (result.Error != SocketError.Interrupted && !batch.TryClearSource(next))
            {
                // This sender cannot be reached (ENETUNREACH, EHOSTUNREACH, EPERM of a firewall...). The others may be reachable.
                DroppedReplies++;
                next++;
            }
        }

        batch.ClearReplies();
    }

    void IPollTarget.OnHandlerException(Exception exception)
    {
        // The handler catches the exceptions of user code. Datagrams that still wait are reported again.
    }

    void IPollTarget.OnLoopStopping() => Close();

    private void Close()
    {
        if (Interlocked.Exchange(ref _closing, 1) != 0)
        {
            return;
        }

        _pause?.Cancel();
        using (var owner = loop.Ownership.Enter())
        {
            loop.Remove(owner, _token);
        }

        _ = Libc.close(descriptor);
        _closed.SetResult();
    }
}
