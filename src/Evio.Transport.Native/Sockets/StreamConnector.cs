using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Sockets;

/// <summary>One attempt to connect, on the loop that will own the connection. It ends once: connected, failed or cancelled.</summary>
internal sealed class StreamConnector : IPollTarget
{
    /// <summary>
    /// The time between two attempts while the backlog of a Unix-domain listener is full, because no event announces room (connect(2),
    /// EAGAIN).
    /// </summary>
    private static readonly TimeSpan BacklogRetry = TimeSpan.FromMilliseconds(10);

    private readonly EventLoop _loop;
    private readonly EndPoint _endPoint;
    private readonly bool _noDelay;
    private readonly TimeSpan _timeout;
    private readonly Action<StreamSocket> _onConnected;
    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _descriptor = -1;
    private ulong _token;
    private bool _isRegistered;
    private bool _ended;
    private LoopTimer? _retryTimer;
    private LoopTimer? _timeoutTimer;

    private StreamConnector(EventLoop loop, EndPoint endPoint, StreamConnectOptions options, Action<StreamSocket> onConnected)
    {
        _loop = loop;
        _endPoint = endPoint;
        _noDelay = options.NoDelay;
        _timeout = options.ConnectTimeout;
        _onConnected = onConnected;
    }

    /// <param name="loop">The future owner, which has counted the connection.</param>
    /// <param name="endPoint">An IP or Unix-domain end point.</param>
    /// <param name="options">See there; the loop is chosen.</param>
    /// <param name="onConnected">Called on the loop, before the task completes.</param>
    /// <param name="cancellationToken">Ends the attempt.</param>
    internal static async Task ConnectAsync(
        EventLoop loop, EndPoint endPoint, StreamConnectOptions options, Action<StreamSocket> onConnected, CancellationToken cancellationToken)
    {
        var connector = new StreamConnector(loop, endPoint, options, onConnected);
        if (!loop.TryPostInternal(static connector => ((StreamConnector)connector!).Begin(), connector))
        {
            loop.ConnectionRemoved();
            throw LoopEnded();
        }

        using var registration = cancellationToken.UnsafeRegister(
            static (state, token) =>
            {
                var connector = (StreamConnector)state!;

                // If the loop has ended, it has ended the attempt.
                _ = connector._loop.TryPostInternal(_ => connector.Fail(new OperationCanceledException(token)), null);
            },
            connector);
        await connector._completion.Task.ConfigureAwait(false);
    }

    private static ObjectDisposedException LoopEnded() => new(nameof(EventLoopGroup));

    private void Begin()
    {
        if (_ended)
        {
            return;
        }

        try
        {
            _descriptor = SocketDescriptors.Create(SocketAddresses.FamilyOf(_endPoint), Platform.SOCK_STREAM, _endPoint);
            if (_noDelay && _endPoint is IPEndPoint)
            {
                SocketDescriptors.SetOption(_descriptor, Platform.IPPROTO_TCP, Platform.TCP_NODELAY, 1);
            }

            using (var owner = _loop.Ownership.Enter())
            {
                _token = _loop.Add(owner, this);
            }

            if (_timeout != Timeout.InfiniteTimeSpan)
            {
                _timeoutTimer = _loop.ScheduleInternal(_timeout, static connector => ((StreamConnector)connector!).OnTimeout(), this);
            }

            Attempt();
        }
        catch (Exception exception)
        {
            Fail(exception);
        }
    }

    private void Attempt()
    {
        var errno = SocketDescriptors.Connect(_descriptor, _endPoint);
        switch (errno)
        {
            case 0:
                Complete();
                break;
            case Errno.EINPROGRESS or Errno.EINTR:
                // After EINTR the attempt goes on as well (connect(2)). The poller reports its end as writable or as an error.
                using (var owner = _loop.Ownership.Enter())
                {
                    errno = _loop.RegisterStream(owner, _token, _descriptor);
                }

                _isRegistered = errno == 0;
                if (errno != 0)
                {
                    Fail(Errno.ToException(errno, $"The connection to {_endPoint} could not be registered with its loop (errno {errno})."));
                }

                break;
            case Errno.EAGAIN when _endPoint is UnixDomainSocketEndPoint:
                _retryTimer = _loop.ScheduleInternal(BacklogRetry, static connector => ((StreamConnector)connector!).Attempt(), this);
                break;
            default:
                Fail(ConnectException(errno));
                break;
        }
    }

    private void OnTimeout() => Fail(Errno.ToException(
        Errno.ETIMEDOUT, $"No connection to {_endPoint} could be made within {_timeout} ({nameof(StreamConnectOptions.ConnectTimeout)})."));

    void IPollTarget.OnReady(ReadyEvents events)
    {
        var errno = SocketDescriptors.TakeError(_descriptor);
        if (errno != 0)
        {
            Fail(ConnectException(errno));
        }
        else if ((events & ReadyEvents.Writable) != 0)
        {
            Complete();
        }
    }

    void IPollTarget.OnHandlerException(Exception exception) => Fail(exception);

    void IPollTarget.OnLoopStopping() => Fail(LoopEnded());

    private void Complete()
    {
        var localEndPoint = SocketAddresses.GetLocal(_descriptor);
        if (_endPoint.Equals(localEndPoint))
        {
            // No server listens there. The kernel chose the same port for this side, and the socket is connected to itself (RFC 9293, 3.5:
            // a simultaneous open).
            Fail(ConnectException(Errno.ECONNREFUSED));
            return;
        }

        End();
        var socket = new StreamSocket(_loop, _descriptor, localEndPoint, _endPoint);
        try
        {
            _onConnected(socket);
            _completion.SetResult();
        }
        catch (Exception exception)
        {
            socket.Close();
            _completion.SetException(exception);
        }
    }

    private void Fail(Exception reason)
    {
        if (_ended)
        {
            return;
        }

        End();
        _loop.ConnectionRemoved();
        if (_descriptor >= 0)
        {
            _ = Libc.close(_descriptor);
        }

        if (reason is OperationCanceledException cancelled)
        {
            _completion.SetCanceled(cancelled.CancellationToken);
        }
        else
        {
            _completion.SetException(reason);
        }
    }

    /// <summary>Removes the attempt from the loop. From here on the descriptor is the caller's.</summary>
    private void End()
    {
        _ended = true;
        _retryTimer?.Cancel();
        _timeoutTimer?.Cancel();
        using var owner = _loop.Ownership.Enter();
        if (_isRegistered)
        {
            _loop.Deregister(owner, _descriptor);
        }

        _loop.Remove(owner, _token);
    }

    private SocketException ConnectException(int errno) =>
        Errno.ToException(errno, $"No connection to {_endPoint} could be made: {new SocketException((int)Errno.ToSocketError(errno)).Message}");
}
