using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

public sealed class PipeWriterOverPipeTests : PipeWriterContractTests
{
    private protected override ValueTask<WriterEnds> CreateAsync() => ValueTask.FromResult(WriterEnds.OverPipe());
}

public sealed class PipeWriterOverEvioInlineTests : PipeWriterContractTests
{
    private protected override ValueTask<WriterEnds> CreateAsync() => WriterEnds.OverSocketAsync(TransportKind.EvioInline);
}

public sealed class PipeWriterOverEvioAdaptiveTests : PipeWriterContractTests
{
    private protected override ValueTask<WriterEnds> CreateAsync() => WriterEnds.OverSocketAsync(TransportKind.EvioAdaptive);
}

public sealed class PipeWriterOverEvioThreadPoolTests : PipeWriterContractTests
{
    private protected override ValueTask<WriterEnds> CreateAsync() => WriterEnds.OverSocketAsync(TransportKind.EvioThreadPool);
}

public sealed class PipeWriterOverSocketsTests : PipeWriterContractTests
{
    private protected override ValueTask<WriterEnds> CreateAsync() => WriterEnds.OverSocketAsync(TransportKind.Sockets);

    /// <summary>Servers broadcast to a connection that also answers.</summary>
    [Theory, EvioTransports]
    public async Task Writes_of_several_threads_arrive_whole(TransportKind kind)
    {
        const int Writers = 4;
        const int Rounds = 30;
        await using var pair = await ConnectedPair.CreateAsync(kind, new TransportSettings { MaxWriteBufferSize = 1_000_000_000 });
        var receive = pair.Client.ReceiveToEndAsync();

        await Task.WhenAll(Enumerable.Range(0, Writers).Select(writer => Task.Run(async () =>
        {
            for (var round = 0; round < Rounds; round++)
            {
                var message = new byte[round % 2 == 0 ? 100 : 70_000];
                message.AsSpan().Fill((byte)('a' + writer));
                await pair.Output.WriteAsync(message);
            }
        }))).OrTimeout();
        await pair.Output.CompleteAsync();

        // Runs of one letter are made of whole messages, of which the long and the short ones take turns with each writer.
        var received = await receive.OrTimeout();
        Assert.Equal(Writers * Rounds / 2 * (100 + 70_000), received.Length);
        for (var start = 0; start < received.Length;)
        {
            var rest = received.AsSpan(start);
            var end = rest.IndexOfAnyExcept(rest[0]);
            var length = end < 0 ? rest.Length : end;
            Assert.Contains(length % 70_100, (int[])[0, 100, 70_000]);
            start += length;
        }
    }
}
