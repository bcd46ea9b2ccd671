using System.Diagnostics;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// The part of a server that belongs to one loop: its connections, and the buffers that they share. Used by the loop only.
/// </summary>
internal sealed class ServerLoop(EvioServer server, EventLoop loop)
{
    /// <summary>The size of an input buffer in bytes. Larger input comes in several callbacks.</summary>
    internal const int InputBufferSize = 64 * 1024;

    /// <summary>The largest number of input buffers that are kept. Blocked callbacks hold one each.</summary>
    private const int MaxKeptInputBuffers = 4;

    private readonly HashSet<StreamConnection> _connections = [];
    private readonly Stack<byte[]> _inputBuffers = new(MaxKeptInputBuffers);
    private byte[]? _drainBuffer;
    private bool _stopping;
    private TaskCompletionSource? _emptied;

    internal EvioServer Server => server;

    internal EventLoop Loop => loop;

    internal Events Events => server.Events;

    internal OutputBlocks Blocks { get; } = new();

    /// <summary>Takes a buffer to receive into. The loop uses the same one again and again, unless a blocked callback holds it.</summary>
    /// <remarks>Pinned for its lifetime, because the kernel gets it for every receive.</remarks>
    internal byte[] RentInputBuffer() =>
        _inputBuffers.TryPop(out var buffer) ? buffer : GC.AllocateUninitializedArray<byte>(InputBufferSize, pinned: true);

    internal void ReturnInputBuffer(byte[] buffer)
    {
        if (_inputBuffers.Count < MaxKeptInputBuffers)
        {
            _inputBuffers.Push(buffer);
        }
    }

    /// <summary>
    /// The buffer for input that closing connections drop. Not an input buffer, because <see cref="Events.Data"/> of one connection may
    /// close another one.
    /// </summary>
    internal byte[] DrainBuffer => _drainBuffer ??= GC.AllocateUninitializedArray<byte>(InputBufferSize);

    /// <summary>Opens a connection that was accepted or dialled.</summary>
    internal StreamConnection? Open(IStreamChannel channel, int addressIndex, object? context = null)
    {
        if (_stopping)
        {
            channel.Close();
            return null;
        }

        var connection = new StreamConnection(this, channel, addressIndex) { Context = context };
        _connections.Add(connection);
        connection.Open();
        return connection;
    }

    internal void Remove(StreamConnection connection)
    {
        _connections.Remove(connection);
        if (_connections.Count == 0)
        {
            _emptied?.TrySetResult();
        }
    }

    /// <summary>
    /// Closes all connections, and those that are opened later. Each has until the deadline to send its pending output. A second call may
    /// shorten the deadline.
    /// </summary>
    internal void Stop(TimeSpan deadline, TaskCompletionSource emptied)
    {
        _stopping = true;
        _emptied = emptied;
        foreach (var connection in _connections)
        {
            // A call for each connection: its last callback may block, and the other connections must not wait for that.
            _ = loop.TryPostWhileEnding(_ => connection.CloseWithin(deadline), null);
        }

        if (_connections.Count == 0)
        {
            emptied.TrySetResult();
            return;
        }

        // At the deadline, only connections in blocked callbacks are still open. The stop does not wait for those.
        _ = loop.TryPostWhileEnding(
            _ => loop.ScheduleInternal(deadline, static emptied => ((TaskCompletionSource)emptied!).TrySetResult(), emptied),
            null);
    }

    /// <summary>Begins the ticks. On loop 0.</summary>
    internal void StartTicking() => Tick(Stopwatch.GetTimestamp());

    private void Tick(long due)
    {
        if (_stopping)
        {
            return;
        }

        TimeSpan delay;
        try
        {
            var action = Events.Tick!(out delay);
            server.Handle(action);
            if (action == EvioAction.Shutdown)
            {
                return;
            }
        }
        catch (Exception exception)
        {
            server.Fail(exception);
            return;
        }

        if (delay > TimeSpan.Zero && !_stopping)
        {
            var now = Stopwatch.GetTimestamp();
            var next = NextTick(due, delay, now);
            loop.Schedule(Stopwatch.GetElapsedTime(now, next), _ => Tick(next), null);
        }
    }

    /// <summary>
    /// When the next tick is due: a whole number of delays after the last one was, so that ticks do not drift, and not before now.
    /// </summary>
    /// <param name="due">When the last tick was due.</param>
    /// <param name="delay">The delay, more than zero.</param>
    /// <param name="now">The moment. Ticks that were due before it are left out.</param>
    internal static long NextTick(long due, TimeSpan delay, long now)
    {
        var period = Math.Max(1, (long)(delay.TotalSeconds * Stopwatch.Frequency));
        var passed = Math.Max(0, now - due) / period;
        return period >= long.MaxValue - Math.Max(due, now) ? long.MaxValue : due + ((passed + 1) * period);
    }
}
