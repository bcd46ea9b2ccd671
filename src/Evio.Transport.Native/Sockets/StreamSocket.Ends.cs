using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native;

/// <content>The close of a socket, the leases that defer it, and the events that the loop reports.</content>
public sealed unsafe partial class StreamSocket
{
    /// <summary>Sends FIN: the peer sees the end of the output after all that was sent before (shutdown(2)).</summary>
    public void ShutdownSend()
    {
        if (TryLease())
        {
            Volatile.Write(ref _sendShutdown, true);

            // This fails only when the connection is gone already. Then there is no peer to notify.
            _ = Libc.shutdown(_descriptor, Platform.SHUT_WR);
            ShutdownView();
            EndLease();
        }
    }

    /// <summary>
    /// Shuts down the output of the view. Otherwise the BCL dissolves the connection when the view is disposed of while a thread is in a
    /// call on it.
    /// </summary>
    private void ShutdownView()
    {
        try
        {
            Volatile.Read(ref _socketView)?.Shutdown(SocketShutdown.Send);
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            // The connection is gone already, or the application has disposed of the view.
        }
    }

    /// <summary>
    /// Ends the connection at once and discards unsent and unread bytes. The peer of a TCP connection gets RST; on systems other than Linux
    /// it gets RST only at <see cref="Close"/>. The descriptor stays open, and events are reported, until <see cref="Close"/>.
    /// </summary>
    public void Reset()
    {
        if (!TryLease())
        {
            return;
        }

        SocketCalls.Reset(_descriptor);
        EndLease();
    }

    /// <summary>
    /// Closes the socket. Further calls are refused at once. The descriptor is closed on this thread, or by the last call in flight when it
    /// returns. The loop calls <see cref="IStreamHandler.OnClosed"/> after it has removed the socket.
    /// </summary>
    /// <remarks>
    /// The kernel still delivers the bytes that it has taken, followed by FIN. If received bytes were left unread, the peer gets RST
    /// instead (RFC 2525, 2.17).
    /// </remarks>
    public void Close()
    {
        if (!TryEndOwnLease())
        {
            return;
        }

        // A loop that has ended has closed all started sockets. If it has ended, this socket was never started.
        Loop.RunOnLoop(static socket => ((StreamSocket)socket!).RemoveFromLoop(), this);
    }

    /// <summary>The same as <see cref="Close"/>.</summary>
    public void Dispose() => Close();

    /// <summary>Removes the socket from its loop, without closing it. On the loop.</summary>
    /// <returns>The connection, in blocking mode; the caller owns it.</returns>
    /// <exception cref="ObjectDisposedException">The socket is closed.</exception>
    /// <exception cref="InvalidOperationException">The caller is not on the loop.</exception>
    /// <exception cref="SocketException">The kernel refused blocking mode. The connection is closed.</exception>
    public Socket Detach()
    {
        using var owner = Loop.Ownership.Enter();
        return owner.IsOwner ? DetachOnLoop(owner) : throw new InvalidOperationException("A socket is detached on its loop.");
    }

    private Socket DetachOnLoop(in LoopOwner owner)
    {
        // Calls in flight on other threads still reach the connection that they were made for; later ones are refused.
        int leases;
        do
        {
            leases = Volatile.Read(ref _leases);

            // A closing socket is left unchanged: with both bits set, the last lease would not close the descriptor.
            ObjectDisposedException.ThrowIf(leases < 0, this);
        }
        while (Interlocked.CompareExchange(ref _leases, leases | Detached, leases) != leases);

        if (_token != Polling.Poller.WakeToken)
        {
            Loop.Remove(owner, _token);
            Loop.Deregister(owner, _descriptor);
        }

        Loop.ConnectionRemoved();
        DisposeView();
        var handle = new SafeSocketHandle(_descriptor, ownsHandle: true);
        try
        {
            SocketOptions.SetBlocking(_descriptor);
            return new Socket(handle);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Stores an error that ended the connection. The kernel reports such an error once, to the first call that asks. It answers every
    /// later receive like an end of the input.
    /// </summary>
    private void NoteError(int errno)
    {
        // EPIPE is not one of them: a send gets it after this side has shut down its output, and when a reset follows the peer's FIN.
        if (errno is Errno.ECONNRESET or Errno.ETIMEDOUT or Errno.EHOSTUNREACH or Errno.ENETUNREACH)
        {
            Volatile.Write(ref _terminalError, errno);
        }
    }

    /// <summary>
    /// Tells apart why a receive got 0 bytes: the peer's FIN, or an error that ended the connection and that another call has taken.
    /// </summary>
    private IoResult EndOfInput()
    {
        // The leases are read before the error: a call that has ended its lease has stored the error that it took. A call that is still in
        // the kernel, or has just returned, may not have stored it yet. Only in that case the kernel is asked for the connection's state.
        // It is "closed" after a reset, but also after a graceful end of both sides.
        var isAlone = (Volatile.Read(ref _leases) & ~Detached) <= 2;
        var errno = Volatile.Read(ref _terminalError);
        if (errno != 0)
        {
            return IoResult.FromError(errno);
        }

        // The state is read before the flag: the flag is set before the shutdown that can change the state.
        return isAlone || !SocketCalls.IsClosed(_descriptor) || Volatile.Read(ref _sendShutdown)
            ? IoResult.FromCount(0)
            : IoResult.FromError(Errno.ECONNRESET);
    }

    /// <summary>
    /// Takes the error that <see cref="ReadyEvents.Error"/> announced, a reset for example (<c>SO_ERROR</c>, socket(7)). If it is not
    /// taken, the next receive or send returns it. A receive does so only after it has read all input that arrived before the error.
    /// </summary>
    /// <returns>The error, or <see cref="SocketError.Success"/> when a receive or send has taken it.</returns>
    public SocketError TakeError()
    {
        if (!TryLease())
        {
            return SocketError.OperationAborted;
        }

        var errno = SocketDescriptors.TakeError(_descriptor);
        NoteError(errno);
        EndLease();
        return Errno.ToSocketError(errno);
    }

    int IStreamChannel.Unsent => 0;

    void IStreamChannel.Apply(in SocketSettings settings) => SocketOptions.Apply(_descriptor, LocalEndPoint is IPEndPoint, settings);

    /// <summary>Removes the socket from its loop. On the loop, unless that has ended.</summary>
    private void RemoveFromLoop()
    {
        if (Interlocked.Exchange(ref _removed, 1) != 0)
        {
            return;
        }

        using (var owner = Loop.Ownership.Enter())
        {
            Loop.Remove(owner, _token);
        }

        Loop.ConnectionRemoved();
        try
        {
            _handler?.OnClosed();
        }
        catch (Exception exception)
        {
            Loop.Report(exception);
        }
    }

    /// <summary>Takes a lease, which keeps the descriptor open until <see cref="EndLease"/>.</summary>
    /// <returns>False when the socket is closed or detached.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private bool TryLease()
    {
        var leases = Volatile.Read(ref _leases);
        while (leases >= 0)
        {
            var before = Interlocked.CompareExchange(ref _leases, leases + 1, leases);
            if (before == leases)
            {
                return true;
            }

            leases = before;
        }

        return false;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void EndLease()
    {
        if (Interlocked.Decrement(ref _leases) == Closing)
        {
            CloseDescriptor();
        }
    }

    /// <summary>Closes the connection after its last lease has ended.</summary>
    private void CloseDescriptor()
    {
        // The view is disposed of first, so that close(2) closes the last descriptor. That sends FIN and removes the connection from the
        // poller.
        DisposeView();
        _ = Libc.close(_descriptor);
    }

    /// <summary>Begins to close, and ends the lease that the open socket holds.</summary>
    /// <returns>False when the socket was closed or detached before.</returns>
    private bool TryEndOwnLease()
    {
        if (Interlocked.Or(ref _leases, Closing) < 0)
        {
            return false;
        }

        EndLease();
        return true;
    }

    void IPollTarget.OnReady(ReadyEvents events) => _handler!.OnReady(events);

    void IPollTarget.OnHandlerException(Exception exception)
    {
        Reset();
        Close();
    }

    void IPollTarget.OnLoopStopping()
    {
        try
        {
            if (Volatile.Read(ref _leases) >= 0)
            {
                _handler!.OnLoopStopping();
            }
        }
        finally
        {
            // Also if another thread has begun to close the socket: the call that it posts may not run any more.
            _ = TryEndOwnLease();
            RemoveFromLoop();
        }
    }
}
