using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

public sealed class PipeReaderOverPipeTests : PipeReaderContractTests
{
    private protected override ValueTask<ReaderEnds> CreateAsync() => ValueTask.FromResult(ReaderEnds.OverPipe());
}

public sealed class PipeReaderOverEvioInlineTests : PipeReaderContractTests
{
    private protected override ValueTask<ReaderEnds> CreateAsync() => ReaderEnds.OverSocketAsync(TransportKind.EvioInline);
}

public sealed class PipeReaderOverEvioAdaptiveTests : PipeReaderContractTests
{
    private protected override ValueTask<ReaderEnds> CreateAsync() => ReaderEnds.OverSocketAsync(TransportKind.EvioAdaptive);
}

public sealed class PipeReaderOverEvioThreadPoolTests : PipeReaderContractTests
{
    private protected override ValueTask<ReaderEnds> CreateAsync() => ReaderEnds.OverSocketAsync(TransportKind.EvioThreadPool);
}

public sealed class PipeReaderOverSocketsTests : PipeReaderContractTests
{
    private protected override ValueTask<ReaderEnds> CreateAsync() => ReaderEnds.OverSocketAsync(TransportKind.Sockets);
}
