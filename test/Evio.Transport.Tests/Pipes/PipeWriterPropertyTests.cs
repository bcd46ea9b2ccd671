using System.Buffers;
using System.IO.Pipelines;
using CsCheck;
using Evio.Transport.Testing;

namespace Evio.Transport.Tests.Pipes;

/// <summary>
/// Random sequences of operations on the transport's writer and on <see cref="Pipe"/>'s, which must have the same outcomes, and the same bytes at the
/// other end. A failure prints the shortest sequence that was found, and a seed for the environment variable CsCheck_Seed that repeats it.
/// </summary>
/// <remarks>
/// How much the kernel takes for a peer that does not read differs from moment to moment, and with it where a flush begins to wait. So what is unread is
/// either less than the limit, when no flush waits, or more than limit and kernel hold together (a flood), when every flush does. Out of the
/// comparison are a second flush while one waits, which a pipe leaves open; bytes that are written when nobody is there to read them, which a pipe drops at once and
/// <see cref="PipeWriter.UnflushedBytes"/> counts until the flush; and, once the writer was completed, whether anybody reads, since the connection may be over, and a
/// flush of nothing, which on a pipe may wait.
/// </remarks>
public sealed class PipeWriterPropertyTests
{
    /// <summary>Of one piece of a flood that is drained: what is left stays a flood.</summary>
    private const int MostFloods = 2;
    private const int Little = WriterEnds.MoreThanFits / 6;
    private const int LeastOfAFlood = WriterEnds.MoreThanFits * 3 / 4;

    /// <summary>Unread bytes with which a waiting flush goes on: less than half of the limit.</summary>
    private const int MostLeft = (int)WriterEnds.WriteLimit / 2 - 1;

    private static readonly byte[] Bytes = TestData.Bytes((MostFloods * WriterEnds.MoreThanFits) + (1024 * 1024));

    private enum Verb
    {
        GetMemory,
        GetSpan,
        GetAndLeave,
        Write,
        AdvanceTooFar,
        WriteAsync,
        WriteAsyncWithToken,
        WriteAsyncWithCancelledToken,
        Flood,
        FloodWithToken,
        Flush,
        FlushWithToken,
        FlushWithCancelledToken,
        CancelToken,
        CancelPendingFlush,
        Drain,
        DrainAlmostAll,
        Abandon,
        Complete,
    }

    private static readonly Gen<(Verb Verb, int Size, int Share)[]> Operations = Gen.Select(
        Gen.Frequency(
            (4, Gen.Const(Verb.GetMemory)),
            (4, Gen.Const(Verb.GetSpan)),
            (1, Gen.Const(Verb.GetAndLeave)),
            (4, Gen.Const(Verb.Write)),
            (1, Gen.Const(Verb.AdvanceTooFar)),
            (4, Gen.Const(Verb.WriteAsync)),
            (2, Gen.Const(Verb.WriteAsyncWithToken)),
            (1, Gen.Const(Verb.WriteAsyncWithCancelledToken)),
            (2, Gen.Const(Verb.Flood)),
            (1, Gen.Const(Verb.FloodWithToken)),
            (4, Gen.Const(Verb.Flush)),
            (3, Gen.Const(Verb.FlushWithToken)),
            (1, Gen.Const(Verb.FlushWithCancelledToken)),
            (3, Gen.Const(Verb.CancelToken)),
            (4, Gen.Const(Verb.CancelPendingFlush)),
            (4, Gen.Const(Verb.Drain)),
            (3, Gen.Const(Verb.DrainAlmostAll)),
            (1, Gen.Const(Verb.Abandon)),
            (1, Gen.Const(Verb.Complete))),
        Gen.OneOf(Gen.Int[0, 50], Gen.Int[4000, 4200], Gen.Int[1, 20_000]),
        Gen.Int[0, 100]).Array[1, 40];

    [Theory, EvioTransports]
    public async Task Any_sequence_of_operations_has_the_outcomes_that_it_has_on_a_pipe(TransportKind kind)
    {
        await using var transport = TransportInstance.Create(kind, new TransportSettings { MaxWriteBufferSize = WriterEnds.WriteLimit });
        var listener = await transport.BindAsync();
        await Operations.SampleAsync(
            async operations =>
            {
                await using var pair = await ConnectedPair.ThroughAsync(listener, configureClient: ConnectedPair.MakeSlow);
                using var comparison = new Comparison(pair);
                await comparison.RunAsync(operations);
            },
            iter: 50,
            threads: 1,
            print: static operations => string.Join(", ", operations));
    }

    /// <summary>One sequence, on both sides.</summary>
    private sealed class Comparison(ConnectedPair pair) : IDisposable
    {
        private readonly Pipe _model = new(new PipeOptions(
            readerScheduler: PipeScheduler.Inline,
            writerScheduler: PipeScheduler.Inline,
            pauseWriterThreshold: WriterEnds.WriteLimit,
            resumeWriterThreshold: WriterEnds.WriteLimit / 2,
            useSynchronizationContext: false));
        private CancellationTokenSource _token = new();
        private int _floods;
        private int _written;
        private int _flushed;
        private int _read;
        private bool _abandoned;
        private bool _completed;
        private Task<FlushResult>? _expectedFlush;
        private Task<FlushResult>? _actualFlush;

        private int Unread => _flushed - _read;

        private bool IsFlood => Unread >= LeastOfAFlood;

        public async Task RunAsync((Verb Verb, int Size, int Share)[] operations)
        {
            foreach (var (verb, size, share) in operations)
            {
                await DoAsync(verb, size, share);
                await CompareAsync();
                if (!_abandoned)
                {
                    Assert.Equal(_model.Writer.UnflushedBytes, pair.Output.UnflushedBytes);
                }
            }

            await EndAsync();
        }

        public void Dispose() => _token.Dispose();

        private async Task DoAsync(Verb verb, int size, int share)
        {
            switch (verb)
            {
                case Verb.GetMemory when HasRoomFor(size):
                    Append(size, static (writer, hint, bytes) => bytes.CopyTo(writer.GetMemory(hint).Span));
                    break;
                case Verb.GetSpan when HasRoomFor(size):
                    Append(size, static (writer, hint, bytes) => bytes.CopyTo(writer.GetSpan(hint)));
                    break;
                case Verb.GetAndLeave:
                    OnBoth(writer => writer.GetMemory(size).Span[..size].Fill((byte)'?'));
                    break;
                case Verb.Write when HasRoomFor(size):
                    if (OnBoth(writer => writer.Write(Bytes.AsSpan(_written, size))))
                    {
                        _written += size;
                    }

                    break;
                case Verb.AdvanceTooFar:
                    OnBoth(static writer => writer.Advance(int.MaxValue));
                    OnBoth(static writer => writer.Advance(-1));
                    break;
                case Verb.WriteAsync when HasRoomFor(size):
                    Write(size, withToken: false);
                    break;
                case Verb.WriteAsyncWithToken when HasRoomFor(size):
                    Write(size, withToken: true);
                    break;
                case Verb.Flood or Verb.FloodWithToken when !IsFlood && _floods < MostFloods && _expectedFlush is null:
                    _floods++;
                    Write(WriterEnds.MoreThanFits, verb == Verb.FloodWithToken);
                    break;
                case Verb.WriteAsyncWithCancelledToken:
                    Flush(writer => writer.WriteAsync(Bytes.AsMemory(0, size), new CancellationToken(canceled: true)));
                    break;
                case Verb.Flush or Verb.FlushWithToken when _expectedFlush is null && !(_completed && IsFlood):
                    RenewToken();
                    var token = verb == Verb.Flush ? CancellationToken.None : _token.Token;
                    Flush(writer => writer.FlushAsync(token));
                    _flushed = _written;
                    break;
                case Verb.FlushWithCancelledToken:
                    Flush(static writer => writer.FlushAsync(new CancellationToken(canceled: true)));
                    break;
                case Verb.CancelToken:
                    await _token.CancelAsync();
                    break;
                case Verb.CancelPendingFlush:
                    OnBoth(static writer => writer.CancelPendingFlush());
                    break;
                case Verb.Drain when !_abandoned && IsFlood:
                    await DrainAsync(Math.Min(Unread - LeastOfAFlood, Little * share / 100));
                    break;
                case Verb.Drain when !_abandoned:
                    await DrainAsync(Unread * share / 100);
                    break;
                case Verb.DrainAlmostAll when !_abandoned:
                    await DrainAsync(Math.Max(0, Unread - (MostLeft * share / 100)));
                    break;
                case Verb.Abandon when !_abandoned && !_completed:
                    _abandoned = true;
                    await _model.Reader.CompleteAsync();
                    pair.Client.Reset();
                    await pair.Connection.ConnectionClosed.WhenCancelled();
                    break;
                case Verb.Complete:
                    OnBoth(static writer => writer.Complete());
                    _completed = true;
                    _flushed = _written;
                    break;
            }
        }

        /// <summary>Whether that many bytes more leave it certain whether a flush waits: below the limit, or, in a flood, below it once that has drained.</summary>
        private bool HasRoomFor(int size) =>
            _abandoned ? _written + size < Bytes.Length - WriterEnds.MoreThanFits : _written - _flushed + size + (IsFlood ? MostLeft : Unread) < WriterEnds.WriteLimit;

        private void Append(int size, WriteBytes write)
        {
            var bytes = Bytes.AsSpan(_written, size).ToArray();
            if (OnBoth(writer =>
                {
                    write(writer, size, bytes);
                    writer.Advance(size);
                }))
            {
                _written += size;
            }
        }

        private void Write(int size, bool withToken)
        {
            if (_expectedFlush is not null)
            {
                return;
            }

            RenewToken();
            var bytes = Bytes.AsMemory(_written, size);
            var token = withToken ? _token.Token : CancellationToken.None;
            Flush(writer => writer.WriteAsync(bytes, token));
            if (!_completed)
            {
                _written += size;
                _flushed = _written;
            }
        }

        private void Flush(Func<PipeWriter, ValueTask<FlushResult>> flush)
        {
            if (_expectedFlush is null)
            {
                (_expectedFlush, _actualFlush) = (StartAsync(_model.Writer), StartAsync(pair.Output));
            }

            async Task<FlushResult> StartAsync(PipeWriter writer) => await flush(writer).ConfigureAwait(false);
        }

        private void RenewToken()
        {
            if (_token.IsCancellationRequested)
            {
                _token.Dispose();
                _token = new CancellationTokenSource();
            }
        }

        /// <summary>Does the same to both, and fails unless both let it or neither does.</summary>
        private bool OnBoth(Action<PipeWriter> action)
        {
            var expected = Record.Exception(() => action(_model.Writer));
            var actual = Record.Exception(() => action(pair.Output));
            Assert.Equal(expected?.GetType(), actual?.GetType());
            return expected is null;
        }

        private async Task DrainAsync(int count)
        {
            if (count == 0)
            {
                return;
            }

            // What was flushed is there: neither waits for more.
            var result = await _model.Reader.ReadAtLeastAsync(count).OrTimeout();
            var taken = result.Buffer.Slice(0, count);
            TestData.AssertSame(Bytes.AsMemory(_read, count), taken.ToArray());
            _model.Reader.AdvanceTo(taken.End);
            TestData.AssertSame(Bytes.AsMemory(_read, count), await pair.Client.ReceiveExactlyAsync(count).OrTimeout());
            _read += count;
        }

        /// <summary>A flush that waits on the model waits on the socket, and one that has ended there ends here in the same way.</summary>
        private async Task CompareAsync()
        {
            if (_expectedFlush is not { } expected || _actualFlush is not { } actual)
            {
                return;
            }

            // The model completes its flushes inline, so this is certain.
            if (!expected.IsCompleted)
            {
                Assert.False(actual.IsCompleted, "The socket's flush has ended, and the model's waits.");
                return;
            }

            (_expectedFlush, _actualFlush) = (null, null);
            var failure = await FailureAsync(expected);
            Assert.Equal(failure, await FailureAsync(actual.OrTimeout()));
            if (failure is null)
            {
                (var model, var socket) = (await expected, await actual);
                Assert.Equal(model.IsCanceled, socket.IsCanceled);
                Assert.True(model.IsCompleted == socket.IsCompleted || _completed, "One says that nobody reads any more, and the other one does not.");
            }
        }

        /// <summary>Everything that was written comes out, and then the end.</summary>
        private async Task EndAsync()
        {
            OnBoth(static writer => writer.Complete());
            if (!_abandoned)
            {
                TestData.AssertSame(Bytes.AsMemory(_read, _written - _read), await pair.Client.ReceiveToEndAsync().OrTimeout());
            }

            // A flush that still waits has ended with that.
            await _model.Reader.CompleteAsync();
            if (_actualFlush is { } flush)
            {
                Assert.Null(await FailureAsync(flush.OrTimeout()));
            }
        }

        private static async Task<Type?> FailureAsync(Task task) => (await Record.ExceptionAsync(() => task))?.GetType();

        private delegate void WriteBytes(PipeWriter writer, int sizeHint, byte[] bytes);
    }
}
