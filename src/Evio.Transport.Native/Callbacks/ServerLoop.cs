using System.Diagnostics;
using Evio.Transport.Native.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// A server's share of one loop: the connections there, and what they use in turn. Only the loop touches it.
/// </summary>
internal sealed class ServerLoop(EvioServer server, EventLoop loop)
{
    /// <summary>The size of the input buffer; larger input comes in several callbacks.</summary>
    internal const int InputBufferSize = 64 * 1024;

    /// <summary>How many buffers are kept after late callbacks have returned.</summary>
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

    /// <summary>
    /// A buffer to receive into. There is one, which comes back before the next receive, unless a callback is late with it.
    /// </summary>
    /// <remarks>Pinned for good: it is handed to the kernel for every receive.</remarks>
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
    /// Where closing connections put what nobody will read. Not an input buffer: one connection's <see cref="Events.Data"/> may close another.
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

    /// <summary>Closes all connections, now and from now on, each with its pending output sent within the time.</summary>
    internal void Stop(TimeSpan deadline, TaskCompletionSource emptied)
    {
        _stopping = true;
        _emptied = emptied;
        foreach (var connection in _connections)
        {
            // As a call of its own: the last callback may cost its thread the loop, and the other connections do not wait until it returns.
            _ = loop.TryPostWhileEnding(_ => connection.CloseWithin(deadline), null);
        }

        if (_connections.Count == 0)
        {
            emptied.TrySetResult();
            return;
        }

        // By then, those whose time is up are closed. The others are in callbacks that are late, which nobody waits for any longer.
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

    /// <summary>When the next tick is due: a whole number of delays after the last one was, so that ticks do not drift, and not before now.</summary>
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
