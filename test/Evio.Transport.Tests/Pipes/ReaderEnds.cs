using System.IO.Pipelines;
using System.Net.Sockets;
using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

/// <summary>A reader under test and the end that feeds it.</summary>
internal abstract class ReaderEnds : IAsyncDisposable
{
    /// <summary>How many bytes the reader's side takes in before it holds the feeding side back.</summary>
    public const long BufferLimit = 64 * 1024;

    public abstract PipeReader Reader { get; }

    public static ReaderEnds OverPipe() => new PipeEnds();

    public static async ValueTask<ReaderEnds> OverSocketAsync(TransportKind kind) =>
        new SocketEnds(await ConnectedPair.CreateAsync(kind, new TransportSettings { MaxReadBufferSize = BufferLimit }));

    public abstract Task FeedAsync(ReadOnlyMemory<byte> bytes);

    public abstract Task EndAsync();

    public abstract ValueTask DisposeAsync();

    private sealed class PipeEnds : ReaderEnds
    {
        private readonly Pipe _pipe = new(new PipeOptions(
            pauseWriterThreshold: BufferLimit, resumeWriterThreshold: BufferLimit / 2, useSynchronizationContext: false));

        public override PipeReader Reader => _pipe.Reader;

        public override async Task FeedAsync(ReadOnlyMemory<byte> bytes) => await _pipe.Writer.WriteAsync(bytes);

        public override async Task EndAsync() => await _pipe.Writer.CompleteAsync();

        public override async ValueTask DisposeAsync()
        {
            await _pipe.Reader.CompleteAsync();
            await _pipe.Writer.CompleteAsync();
        }
    }

    private sealed class SocketEnds(ConnectedPair pair) : ReaderEnds
    {
        public override PipeReader Reader => pair.Input;

        public override Task FeedAsync(ReadOnlyMemory<byte> bytes) => pair.Client.SendAllAsync(bytes);

        public override Task EndAsync()
        {
            pair.Client.Shutdown(SocketShutdown.Send);
            return Task.CompletedTask;
        }

        public override ValueTask DisposeAsync() => pair.DisposeAsync();
    }
}
