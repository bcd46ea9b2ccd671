using System.Buffers;
using System.IO.Pipelines;
using Microsoft.AspNetCore.Connections;

namespace Evio.Transport;

/// <summary>A stream over the pipe ends of a connection, which it owns, for code that knows only streams.</summary>
/// <remarks>
/// One read and one write may run at the same time. As other streams, it may be disposed of during both: clients do that to end them.
/// </remarks>
internal sealed class ConnectionStream(ConnectionContext connection) : Stream
{
    private readonly PipeReader _input = connection.Transport.Input;
    private readonly PipeWriter _output = connection.Transport.Output;

    // Guards received bytes while they are copied, because completing the reader gives its blocks back. The writer protects itself.
    private readonly Lock _reading = new();
    private volatile bool _disposed;

    // The number of writes that are under way.
    private int _writes;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>Reads what has arrived. An empty buffer waits for input and takes none of it.</summary>
    /// <exception cref="ObjectDisposedException">The stream was disposed of, perhaps during the read.</exception>
    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        try
        {
            var result = await _input.ReadAsync(cancellationToken).ConfigureAwait(false);
            lock (_reading)
            {
                ObjectDisposedException.ThrowIf(_disposed, this);
                var input = result.Buffer;
                var count = (int)Math.Min(input.Length, buffer.Length);
                var consumed = input.GetPosition(count);
                input.Slice(0, consumed).CopyTo(buffer.Span);

                // Not examined further than read, so that what is left does not make the next read wait.
                _input.AdvanceTo(consumed);
                return count;
            }
        }
        catch (Exception exception) when (_disposed && exception is not ObjectDisposedException && !cancellationToken.IsCancellationRequested)
        {
            throw Disposed(exception);
        }
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) => ReadAsync(buffer.AsMemory(offset, count)).AsTask().GetAwaiter().GetResult();

    /// <summary>Sends the bytes, and waits as long as the connection's limit of unsent output asks for.</summary>
    /// <exception cref="IOException">The connection has ended.</exception>
    /// <exception cref="ObjectDisposedException">The stream was disposed of, perhaps during the write.</exception>
    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Interlocked.Increment(ref _writes);
        try
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            var result = await _output.WriteAsync(buffer, cancellationToken).ConfigureAwait(false);
            if (result.IsCompleted)
            {
                throw new IOException("The connection has ended.");
            }
        }
        catch (Exception exception) when (_disposed && exception is not ObjectDisposedException && !cancellationToken.IsCancellationRequested)
        {
            throw Disposed(exception);
        }
        finally
        {
            Interlocked.Decrement(ref _writes);
        }
    }

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override void Write(byte[] buffer, int offset, int count) => WriteAsync(buffer.AsMemory(offset, count)).AsTask().GetAwaiter().GetResult();

    /// <summary>Does nothing: every write is flushed.</summary>
    public override void Flush()
    {
    }

    /// <inheritdoc cref="Flush"/>
    public override Task FlushAsync(CancellationToken cancellationToken) =>
        cancellationToken.IsCancellationRequested ? Task.FromCanceled(cancellationToken) : Task.CompletedTask;

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override async ValueTask DisposeAsync()
    {
        EndUse();
        await connection.DisposeAsync().ConfigureAwait(false);
        await base.DisposeAsync().ConfigureAwait(false);
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            // What was written is sent, but the caller does not wait for it. A second call is without effect.
            EndUse();
            _ = connection.DisposeAsync().AsTask();
        }

        base.Dispose(disposing);
    }

    /// <summary>
    /// Ends reads and writes that are under way, whatever the peer does: clients dispose of a connection that has not answered in time. If
    /// a write has not come to its end, its bytes are of no use to the peer, which gets a reset.
    /// </summary>
    private void EndUse()
    {
        lock (_reading)
        {
            _disposed = true;
        }

        // Either this method sees the write, or the write sees that the stream is disposed of.
        if (Interlocked.CompareExchange(ref _writes, 0, 0) > 0)
        {
            connection.Abort(new ConnectionAbortedException("The stream was disposed of during a write."));
        }

        _input.CancelPendingRead();
    }

    private static ObjectDisposedException Disposed(Exception reason) => new("The stream was disposed of.", reason);
}
