using System.Buffers;
using System.IO.Pipelines;
using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

/// <summary>A writer under test and the end at which its bytes come out.</summary>
internal abstract class WriterEnds : IAsyncDisposable
{
    /// <summary>The number of unsent bytes at which a flush makes the writer wait.</summary>
    public const long WriteLimit = 64 * 1024;

    /// <summary>More than the limit and all that the kernel buffers for a client that does not read.</summary>
    public const int MoreThanFits = 12 * 1024 * 1024;

    public abstract PipeWriter Writer { get; }

    public static WriterEnds OverPipe() => new PipeEnds();

    public static async ValueTask<WriterEnds> OverSocketAsync(TransportKind kind) =>
        new SocketEnds(await ConnectedPair.WithSlowClientAsync(kind, new TransportSettings { MaxWriteBufferSize = WriteLimit }));

    /// <summary>Takes exactly <paramref name="count"/> bytes out.</summary>
    public abstract Task<byte[]> DrainAsync(int count);

    /// <summary>Takes everything out, up to the end that the writer's completion makes.</summary>
    public abstract Task<byte[]> DrainToEndAsync();

    /// <summary>Goes away without taking the rest.</summary>
    public abstract Task AbandonAsync();

    public abstract ValueTask DisposeAsync();

    private sealed class PipeEnds : WriterEnds
    {
        private readonly Pipe _pipe = new(new PipeOptions(
            pauseWriterThreshold: WriteLimit, resumeWriterThreshold: WriteLimit / 2, useSynchronizationContext: false));

        public override PipeWriter Writer => _pipe.Writer;

        public override async Task<byte[]> DrainAsync(int count)
        {
            var result = await _pipe.Reader.ReadAtLeastAsync(count);
            var taken = result.Buffer.Slice(0, count);
            var bytes = taken.ToArray();
            _pipe.Reader.AdvanceTo(taken.End);
            return bytes;
        }

        public override async Task<byte[]> DrainToEndAsync()
        {
            using var all = new MemoryStream();
            await _pipe.Reader.CopyToAsync(all);
            return all.ToArray();
        }

        public override async Task AbandonAsync() => await _pipe.Reader.CompleteAsync();

        public override async ValueTask DisposeAsync()
        {
            await _pipe.Reader.CompleteAsync();
            await _pipe.Writer.CompleteAsync();
        }
    }

    private sealed class SocketEnds(ConnectedPair pair) : WriterEnds
    {
        public override PipeWriter Writer => pair.Output;

        public override Task<byte[]> DrainAsync(int count) => pair.Client.ReceiveExactlyAsync(count);

        public override Task<byte[]> DrainToEndAsync() => pair.Client.ReceiveToEndAsync();

        public override Task AbandonAsync()
        {
            pair.Client.Reset();
            return Task.CompletedTask;
        }

        public override ValueTask DisposeAsync() => pair.DisposeAsync();
    }
}
