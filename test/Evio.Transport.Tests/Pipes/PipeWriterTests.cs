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
}
