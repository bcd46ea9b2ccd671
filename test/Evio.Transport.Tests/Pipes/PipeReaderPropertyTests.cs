using System.Buffers;
using System.IO.Pipelines;
using CsCheck;
using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

/// <summary>
/// Random sequences of operations on the transport's reader and on <see cref="Pipe"/>, which must have the same outcomes. A failure prints the
/// shortest sequence that was found, and a seed for the environment variable CsCheck_Seed that repeats it.
/// </summary>
/// <remarks>
/// A socket may give its bytes in more results than a pipe. So both are advanced to the same place, which both have seen, and what is compared is
/// where a result begins, its bytes as far as both have them, whether a read waits, and how it ends. ReadAtLeastAsync takes no part: a pipe keeps the
/// minimum of one that was cancelled for the reads that follow.
/// </remarks>
public sealed class PipeReaderPropertyTests
{
    private const int MostFed = 60_000;

    private enum Verb
    {
        Feed,
        End,
        Read,
        ReadWithToken,
        ReadWithCancelledToken,
        CancelToken,
        CancelPendingRead,
        Advance,
        Complete,
    }

    private static readonly Gen<(Verb Verb, int Size, int Consumed, int Examined)[]> Operations = Gen.Select(
        Gen.Frequency(
            (6, Gen.Const(Verb.Feed)),
            (1, Gen.Const(Verb.End)),
            (8, Gen.Const(Verb.Read)),
            (3, Gen.Const(Verb.ReadWithToken)),
            (1, Gen.Const(Verb.ReadWithCancelledToken)),
            (2, Gen.Const(Verb.CancelToken)),
            (3, Gen.Const(Verb.CancelPendingRead)),
            (8, Gen.Const(Verb.Advance)),
            (1, Gen.Const(Verb.Complete))),
        Gen.OneOf(Gen.Int[1, 50], Gen.Int[4000, 4200], Gen.Int[1, 20_000]),
        Gen.Int[0, 100],
        Gen.Int[0, 100]).Array[1, 40];

    [Theory, EvioTransports]
    public async Task Any_sequence_of_operations_has_the_outcomes_that_it_has_on_a_pipe(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind);
        var listener = await transport.BindAsync();
        await Operations.SampleAsync(
            async operations =>
            {
                await using var pair = await ConnectedPair.ThroughAsync(listener);
                using var comparison = new Comparison(pair);
                await comparison.RunAsync(operations);
            },
            iter: 200,
            threads: 1,
            print: static operations => string.Join(", ", operations));
    }

    /// <summary>One sequence, on both sides.</summary>
    private sealed class Comparison(ConnectedPair pair) : IDisposable
    {
        private readonly Pipe _model = new(new PipeOptions(
            readerScheduler: PipeScheduler.Inline, writerScheduler: PipeScheduler.Inline, pauseWriterThreshold: 0, useSynchronizationContext: false));
        private readonly byte[] _bytes = TestData.Bytes(MostFed);
        private CancellationTokenSource _token = new();
        private int _fed;
        private bool _ended;
        private bool _hasResult;
        private bool _wasCanceled;
        private long _consumed;
        private long _examined;
        private ReadOnlySequence<byte> _expected;
        private ReadOnlySequence<byte> _actual;
        private Task<ReadResult>? _expectedRead;
        private Task<ReadResult>? _actualRead;

        public async Task RunAsync((Verb Verb, int Size, int Consumed, int Examined)[] operations)
        {
            foreach (var (verb, size, consumed, examined) in operations)
            {
                switch (verb)
                {
                    case Verb.Feed when !_ended && _fed + size <= MostFed:
                        var fed = _bytes.AsMemory(_fed, size);
                        _fed += size;
                        await _model.Writer.WriteAsync(fed);
                        await pair.Client.SendAllAsync(fed).OrTimeout();
                        break;
                    case Verb.End when !_ended:
                        _ended = true;
                        await _model.Writer.CompleteAsync();
                        pair.Client.Shutdown(System.Net.Sockets.SocketShutdown.Send);
                        break;
                    case Verb.Read:
                        Read(static (reader, _) => reader.ReadAsync(CancellationToken.None));
                        break;
                    case Verb.ReadWithToken:
                        Read(static (reader, token) => reader.ReadAsync(token));
                        break;
                    case Verb.ReadWithCancelledToken:
                        Read(static (reader, _) => reader.ReadAsync(new CancellationToken(canceled: true)));
                        break;
                    case Verb.CancelToken:
                        await _token.CancelAsync();
                        break;
                    case Verb.CancelPendingRead:
                        _model.Reader.CancelPendingRead();
                        pair.Input.CancelPendingRead();
                        break;
                    case Verb.Advance:
                        Advance(consumed, examined);
                        break;
                    case Verb.Complete when _expectedRead is null:
                        await _model.Reader.CompleteAsync();
                        await pair.Input.CompleteAsync();
                        (_expected, _actual, _hasResult) = (default, default, false);
                        break;
                }

                await CompareAsync();
            }

            // A read that waits is let go, or nobody would observe it.
            _model.Reader.CancelPendingRead();
            pair.Input.CancelPendingRead();
            await CompareAsync();
        }

        public void Dispose() => _token.Dispose();

        /// <summary>Not while another read waits or has to be advanced, a mistake after which a pipe is not what it was. A canceled one need not be.</summary>
        private void Read(Func<PipeReader, CancellationToken, ValueTask<ReadResult>> read)
        {
            if (_expectedRead is not null || (_hasResult && !_wasCanceled))
            {
                return;
            }

            if (_token.IsCancellationRequested)
            {
                _token.Dispose();
                _token = new CancellationTokenSource();
            }

            (_expectedRead, _actualRead) = (StartAsync(_model.Reader), StartAsync(pair.Input));

            async Task<ReadResult> StartAsync(PipeReader reader) => await read(reader, _token.Token).ConfigureAwait(false);
        }

        /// <summary>A read that waits on the model waits on the socket, and one that has ended there ends here in the same way.</summary>
        private async Task CompareAsync()
        {
            if (_expectedRead is not { } expected || _actualRead is not { } actual)
            {
                return;
            }

            // The model completes its reads inline, so this is certain.
            if (!expected.IsCompleted)
            {
                Assert.False(actual.IsCompleted, "The socket's read has ended, and the model's waits.");
                return;
            }

            (_expectedRead, _actualRead) = (null, null);
            var failure = await FailureAsync(expected);
            Assert.Equal(failure, await FailureAsync(actual.OrTimeout()));
            if (failure is not null)
            {
                return;
            }

            (var model, var socket) = (await expected, await actual);
            (_expected, _actual, _hasResult) = (model.Buffer, socket.Buffer, true);
            _wasCanceled = model.IsCanceled;
            Assert.Equal(model.IsCanceled, socket.IsCanceled);
            Assert.True(model.IsCompleted || !socket.IsCompleted, "The socket's input has ended, and the model's has not.");
            Assert.True(_actual.Length <= _expected.Length, "The socket gave more than it was fed.");
            Assert.True(!socket.IsCompleted || _actual.Length == _expected.Length, "The socket's input has ended before its last byte.");
            TestData.AssertSame(_expected.Slice(0, _actual.Length).ToArray(), _actual.ToArray());
        }

        private void Advance(int consumedPercent, int examinedPercent)
        {
            // A pipe does not always notice that there is nothing to advance.
            if (_expectedRead is not null || !_hasResult)
            {
                return;
            }

            // Within what both have seen, and never back behind what was examined before.
            var common = Math.Min(_expected.Length, _actual.Length);
            var consumed = common * consumedPercent / 100;
            var examined = Math.Min(common, Math.Max(Math.Max(consumed, common * examinedPercent / 100), _examined - _consumed));
            Assert.Equal(
                Record.Exception(() => _model.Reader.AdvanceTo(_expected.GetPosition(consumed), _expected.GetPosition(examined)))?.GetType(),
                Record.Exception(() => pair.Input.AdvanceTo(_actual.GetPosition(consumed), _actual.GetPosition(examined)))?.GetType());
            (_consumed, _examined) = (_consumed + consumed, Math.Max(_examined, _consumed + examined));
            (_expected, _actual, _hasResult) = (default, default, false);
        }

        private static async Task<Type?> FailureAsync(Task task) => (await Record.ExceptionAsync(() => task))?.GetType();
    }
}
