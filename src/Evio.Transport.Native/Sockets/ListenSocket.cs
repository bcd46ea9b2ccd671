using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Sockets;

/// <summary>One listening descriptor on one loop. All but <see cref="StartAsync"/> is called on that loop.</summary>
internal sealed unsafe class ListenSocket(StreamListener listener, EventLoop loop, int descriptor, bool startPaused) : IPollTarget
{
    /// <summary>The number of connections that are accepted before the loop handles its other descriptors.</summary>
    private const int MaxAcceptsPerEvent = 64;

    /// <summary>The number of accepts in a row that may fail with an error of the new connection before the listener backs off.</summary>
    private const int MaxFailures = MaxAcceptsPerEvent;

    /// <summary>The number of connections that are accepted when the listener closes. No backlog is longer.</summary>
    private const int MaxAcceptsAtClose = StreamListenerOptions.MaxBacklog + 1;

    private static readonly TimeSpan BackOff = TimeSpan.FromMilliseconds(100);

    private ulong _token;
    private bool _isRegistered;
    private bool _paused = startPaused;
    private bool _closing;
    private bool _closed;
    private bool _failing;
    private LoopTimer? _backOff;

    internal EventLoop Loop => loop;

    internal Task StartAsync()
    {
        var started = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var posted = loop.TryPostInternal(
            state =>
            {
                try
                {
                    Start();
                    started.SetResult();
                }
                catch (Exception exception)
                {
                    started.SetException(exception);
                }
            }, null);
        if (!posted)
        {
            End();
            started.SetException(new ObjectDisposedException(nameof(EventLoopGroup)));
        }

        return started.Task;
    }

    public void OnReady(ReadyEvents events) => Accept(MaxAcceptsPerEvent);

    public void OnHandlerException(Exception exception)
    {
        // A callback that notifies of an episode has thrown. Connections that still wait are reported again (level-triggered).
    }

    public void OnLoopStopping()
    {
        if (!listener.TryMove(this))
        {
            Close();
        }
    }

    internal void Pause()
    {
        if (!TryForward(static socket => ((ListenSocket)socket!).Pause()))
        {
            _paused = true;
            Update();
        }
    }

    internal void Resume()
    {
        if (!TryForward(static socket => ((ListenSocket)socket!).Resume()))
        {
            _paused = false;
            Update();
        }
    }

    /// <summary>
    /// Moves to another loop when the own loop has failed. The descriptor, and the connections that wait there, stay as they are.
    /// </summary>
    /// <returns>False when the other loop has ended.</returns>
    internal bool TryMoveTo(EventLoop other)
    {
        var failed = loop;
        using (var owner = failed.Ownership.Enter())
        {
            if (_isRegistered)
            {
                _isRegistered = false;
                failed.Deregister(owner, descriptor);
            }

            _backOff = null;
            failed.Remove(owner, _token);
            _token = Polling.Poller.WakeToken;
        }

        loop = other;
        if (other.TryPostWhileEnding(static socket => ((ListenSocket)socket!).AttachToLoop(), this))
        {
            return true;
        }

        loop = failed;
        return false;
    }

    private void AttachToLoop()
    {
        if (_closed)
        {
            // A close has come to this loop before.
            return;
        }

        using (var owner = loop.Ownership.Enter())
        {
            _token = loop.Add(owner, this);
        }

        if (listener.IsClosing)
        {
            // The failed loop may not have run the call that closes this socket.
            Close();
        }
        else
        {
            Update();
        }
    }

    /// <summary>Forwards a call that was posted to a loop from which the socket has moved away.</summary>
    private bool TryForward(Action<object?> call) => !loop.IsCurrent && loop.TryPostWhileEnding(call, this);

    internal void Close()
    {
        if (_closed || (!_closing && TryForward(static socket => ((ListenSocket)socket!).Close())))
        {
            return;
        }

        try
        {
            if (!_closing)
            {
                // The file is removed while the descriptor still listens, so that no other server takes it for a stale one.
                _closing = true;
                listener.RemoveSocketFile();
            }

            // The backlog's connections are established from their clients' point of view; closing would reset them.
            Accept(MaxAcceptsAtClose);
        }
        finally
        {
            using var owner = loop.Ownership.Enter();
            if (owner.IsOwner)
            {
                _backOff?.Cancel();
                if (_isRegistered)
                {
                    _isRegistered = false;
                    loop.Deregister(owner, descriptor);
                }

                loop.Remove(owner, _token);
                End();
            }
            else
            {
                // This thread has lost the loop on the way. The new owner completes the close; a loop that is ending does so by itself.
                _ = loop.TryPostWhileEnding(static socket => ((ListenSocket)socket!).Close(), this);
            }
        }
    }

    private void End()
    {
        _closed = true;
        if (listener.OwnsDescriptors)
        {
            _ = Libc.close(descriptor);
        }

        listener.Release();
    }

    private void Start()
    {
        // The loop's table has the socket from now on, even while it is not watched, so that the end of the loop closes it.
        using var owner = loop.Ownership.Enter();
        _token = loop.Add(owner, this);
        if (_paused)
        {
            return;
        }

        var errno = loop.RegisterListener(owner, _token, descriptor);
        if (errno != 0)
        {
            throw Errno.ToException(errno, $"{listener.LocalEndPoint} could not be registered with its loop (errno {errno}).");
        }

        _isRegistered = true;
    }

    private void Accept(int limit)
    {
        // The address is written to the stack, and only the bytes of an IP address are kept.
        var address = stackalloc byte[Platform.SizeOfSockAddrStorage];
        var failures = 0;
        for (var i = 0; i < limit; i++)
        {
            uint length = Platform.SizeOfSockAddrStorage;
            var accepted = SocketCalls.Accept(descriptor, address, &length);
            if (accepted >= 0)
            {
                failures = 0;
                loop.Meter.Accepted();
                listener.HandOver(loop, accepted, new ReadOnlySpan<byte>(address, (int)Math.Min(length, Platform.SizeOfSockAddrStorage)));
                if (!loop.IsCurrent)
                {
                    // This thread has lost the loop while the application handled the connection. The new owner gets the event of the
                    // connections that still wait.
                    return;
                }

                continue;
            }

            var errno = Errno.Last;
            switch (errno)
            {
                case Errno.EAGAIN:
                    EndEpisode();
                    return;
                case Errno.EMFILE or Errno.ENFILE or Errno.ENOBUFS or Errno.ENOMEM:
                    BackOffFrom(errno, limit);
                    return;
                case Errno.EBADF or Errno.EINVAL or Errno.ENOTSOCK or Errno.EOPNOTSUPP:
                    // The descriptor is not, or no longer, a listening socket: the owner of an inherited descriptor has closed it or shut
                    // it down. Every further attempt would fail in the same way, so the back-off limits their rate.
                    BackOffFrom(errno, limit);
                    return;
                case var _ when ++failures == MaxFailures:
                    // So many errors in a row are not errors of connections. For example, a rule that forbids accept4 makes it fail for
                    // ever (seccomp(2), EPERM).
                    BackOffFrom(errno, limit);
                    return;
                default:
                    // ECONNABORTED, EINTR, EPROTO, EPERM and the pending network errors of the new connection (accept(2)): that connection
                    // is lost, and the next accept may succeed.
                    continue;
            }
        }
    }

    private void BackOffFrom(int errno, int limit)
    {
        // A listener that closes does not try again.
        if (_backOff is null && limit != MaxAcceptsAtClose)
        {
            _backOff = loop.ScheduleInternal(BackOff, static state => ((ListenSocket)state!).EndBackOff(), this);
            Update();
        }

        loop.Meter.AcceptFailed();
        if (!_failing)
        {
            _failing = true;
            listener.Failing(Errno.ToException(errno, $"{listener.LocalEndPoint} cannot accept connections (errno {errno})."));
        }
    }

    private void EndEpisode()
    {
        if (_failing)
        {
            _failing = false;
            listener.Recovered();
        }
    }

    private void EndBackOff()
    {
        _backOff = null;
        Update();
        if (_isRegistered)
        {
            // The listener does not wait for the next connection. accept4 takes a descriptor before it checks for a waiting connection, so
            // it may have failed on an empty backlog. Then no event would report that accepting works again.
            Accept(MaxAcceptsPerEvent);
        }
    }

    private void Update()
    {
        var isWanted = !_closed && !_paused && _backOff is null;
        if (isWanted == _isRegistered)
        {
            return;
        }

        using var owner = loop.Ownership.Enter();
        if (!isWanted)
        {
            _isRegistered = false;
            loop.Deregister(owner, descriptor);
            return;
        }

        var errno = loop.RegisterListener(owner, _token, descriptor);
        _isRegistered = errno == 0;
        if (errno != 0)
        {
            // ENOMEM, ENOSPC (epoll_ctl(2)): they pass, like those of accept.
            BackOffFrom(errno, MaxAcceptsPerEvent);
        }
    }
}
