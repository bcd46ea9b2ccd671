using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Sockets;

/// <summary>One listening descriptor on one loop. All but <see cref="StartAsync"/> is called on that loop.</summary>
internal sealed unsafe class ListenSocket(StreamListener listener, EventLoop loop, int descriptor, bool startPaused) : IPollTarget
{
    /// <summary>How many connections are accepted before the loop's other descriptors get their turn.</summary>
    private const int MaxAcceptsPerEvent = 64;

    /// <summary>How many accepts may fail one after the other, each with an error of its connection's, before the listener backs off.</summary>
    private const int MaxFailures = MaxAcceptsPerEvent;

    /// <summary>How many are accepted when the listener closes: no backlog is longer.</summary>
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

    public void OnFault(Exception exception)
    {
        // An exception of a callback that tells of an episode. Connections that still wait are reported again, level-triggered.
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

    /// <summary>Goes on, on another loop, when this one has failed. The descriptor, with the connections that wait there, stays as it is.</summary>
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
        }

        loop = other;
        if (other.TryPostWhileEnding(static socket => ((ListenSocket)socket!).Arrive(), this))
        {
            return true;
        }

        loop = failed;
        return false;
    }

    private void Arrive()
    {
        using (var owner = loop.Ownership.Enter())
        {
            _token = loop.Add(owner, this);
        }

        if (listener.IsClosing)
        {
            // Which the loop that has failed may not have been told any more.
            Close();
        }
        else
        {
            Update();
        }
    }

    /// <summary>Passes on a call that was posted to a loop from which the socket has moved away.</summary>
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
                // While the descriptor still listens, so that nobody takes the file for a stale one.
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
                // Lost to another thread on the way, which comes to the end of it; or it is ending, and does so by itself.
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
        // Known from now on, watched or not, so that the end of the loop closes it.
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
                    // Lost to another thread while the listener's user was told of the connection. Those that still wait are reported there again.
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
                    // The descriptor is not, or no longer, a listening socket: an inherited one was closed or shut down by its owner. Every
                    // further attempt would end like this one, so they are made at the back-off's pace.
                    BackOffFrom(errno, limit);
                    return;
                case var _ when ++failures == MaxFailures:
                    // So many in a row are no connections' errors: a rule that forbids accept4 fails it for ever (seccomp(2), EPERM).
                    BackOffFrom(errno, limit);
                    return;
                default:
                    // ECONNABORTED, EINTR, EPROTO, EPERM and the pending network errors of the new connection (accept(2)): that one is
                    // lost, the next may be fine.
                    continue;
            }
        }
    }

    private void BackOffFrom(int errno, int limit)
    {
        // When it closes nobody will try again.
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
            // Not only when the next connection comes: accept4 wants a descriptor before it looks whether any connection waits, so that the backlog may have
            // been empty when it failed, and no event would tell that it works again.
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
            // ENOMEM, ENOSPC (epoll_ctl(2)): as passing as those of accept.
            BackOffFrom(errno, MaxAcceptsPerEvent);
        }
    }
}
