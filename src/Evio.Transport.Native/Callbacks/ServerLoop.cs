using System.Diagnostics;

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
            _ = loop.TryPostOwn(_ => connection.CloseWithin(deadline), null);
        }

        if (_connections.Count == 0)
        {
            emptied.TrySetResult();
            return;
        }

        // By then, those whose time is up are closed. The others are in callbacks that are late, which nobody waits for any longer.
        _ = loop.TryPostOwn(
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
            // From the moment that this tick was due, not from now: late ticks do not make the next ones later.
            var next = due + (long)(delay.TotalSeconds * Stopwatch.Frequency);
            var wait = delay - Stopwatch.GetElapsedTime(due);
            loop.Schedule(wait > TimeSpan.Zero ? wait : TimeSpan.Zero, _ => Tick(next), null);
        }
    }
}
