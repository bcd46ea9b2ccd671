using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native;

/// <content>The end of a socket, the leases that put it off, and what the loop tells it.</content>
public sealed unsafe partial class StreamSocket
{
    /// <summary>Sends FIN: the peer sees the end of the output after all that was sent before (shutdown(2)).</summary>
    public void ShutdownSend()
    {
        if (TryLease())
        {
            Volatile.Write(ref _outputShut, true);

            // It fails only when the connection is gone already, and then there is nobody to tell.
            _ = Libc.shutdown(_descriptor, Platform.SHUT_WR);
            ShutdownView();
            EndLease();
        }
    }

    /// <summary>The BCL dissolves a connection whose Socket is disposed of while a thread is in a call on it, unless it knows that the output was shut.</summary>
    private void ShutdownView()
    {
        try
        {
            Volatile.Read(ref _view)?.Shutdown(SocketShutdown.Send);
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            // The connection is gone already, or its user has disposed of it.
        }
    }

    /// <summary>
    /// Ends the connection at once, discarding what is unsent and unread: the peer of a TCP connection gets RST (elsewhere than on Linux only
    /// with <see cref="Close"/>). The descriptor stays open, and events are reported, until <see cref="Close"/>.
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
    /// Closes the socket. Further calls are refused at once; the descriptor is closed on this thread, or when the calls in flight have returned. The handler is
    /// told on the loop, when that has forgotten the socket.
    /// </summary>
    /// <remarks>
    /// What the kernel has taken is still delivered, followed by FIN, unless received bytes were left unread: the peer then gets RST
    /// (RFC 2525, 2.17).
    /// </remarks>
    public void Close()
    {
        if (!TryEndOwnLease())
        {
            return;
        }

        // A loop that has ended has closed all that was started; then this one never was.
        Loop.RunOnLoop(static socket => ((StreamSocket)socket!).RemoveFromLoop(), this);
    }

    /// <summary>The same as <see cref="Close"/>.</summary>
    public void Dispose() => Close();

    /// <summary>Takes the socket off its loop, without closing it. On the loop.</summary>
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

            // Nothing is changed then: with both bits set, the last lease would not close the descriptor.
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

    int IStreamChannel.Unsent => 0;

    void IStreamChannel.Apply(in SocketSettings settings) => SocketOptions.Apply(_descriptor, LocalEndPoint is IPEndPoint, settings);

    /// <summary>Removes the socket from its loop. On the loop, unless that has ended.</summary>
    private void RemoveFromLoop()
    {
        if (Interlocked.Exchange(ref _removed, 1) != 0)
        {
            return;
        }

        if (_token != Polling.Poller.WakeToken)
        {
            using var owner = Loop.Ownership.Enter();
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

    /// <summary>Whether the descriptor may be used, and stays open until <see cref="EndLease"/>.</summary>
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

    /// <summary>Closes the connection, whose last lease has ended.</summary>
    private void CloseDescriptor()
    {
        // First, so that close(2) is for the last descriptor: it sends FIN, and has the poller forget the connection.
        DisposeView();
        _ = Libc.close(_descriptor);
    }

    /// <summary>Begins to close, and ends the lease that the open socket is.</summary>
    /// <returns>False when somebody has done so before.</returns>
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

    void IPollTarget.OnFault(Exception exception)
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
            // Also if another thread has begun to close it: the call that it posts for that may not run any more.
            _ = TryEndOwnLease();
            RemoveFromLoop();
        }
    }
}
