using System.Diagnostics.Metrics;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

/// <summary>User code that is only told something and throws, or that does something to the loops' threads: it costs the loops nothing.</summary>
public sealed class NotificationTests
{
    public static TheoryData<string, LoopScheduling> InstrumentsAndModes
    {
        get
        {
            var cases = new TheoryData<string, LoopScheduling>();
            foreach (var scheduling in Enum.GetValues<LoopScheduling>())
            {
                foreach (var instrument in (string[])["accepts", "accept.failures", "io", "wakeups", "takeovers", "busy.time", "connections", ""])
                {
                    cases.Add(instrument, scheduling);
                }
            }

            return cases;
        }
    }

    /// <param name="instrument">The instrument whose listener throws; empty for all of them.</param>
    /// <param name="scheduling">The mode.</param>
    [Theory]
    [MemberData(nameof(InstrumentsAndModes))]
    public async Task A_metrics_listener_that_throws_costs_nothing(string instrument, LoopScheduling scheduling)
    {
        using var meters = new ThrowingMeters($"evio.loop.{instrument}");
        var reported = new List<Exception>();
        var group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = 2,
            LoadBalance = LoadBalance.RoundRobin,
            Scheduling = scheduling,
            MeterFactory = meters,
            OnUnhandledException = (_, exception) =>
            {
                lock (reported)
                {
                    reported.Add(exception);
                }
            },
        });
        await using (group)
        {
            await using var listener = await group.ListenAsync(Server.Loopback, static socket => socket.Start(new Echo(socket))).Within();
            for (var i = 0; i < 20; i++)
            {
                using var client = Server.Dial(listener.LocalEndPoint);
                client.Send("1"u8);
                Assert.Equal(1, client.Receive(new byte[1]));
                if (scheduling == LoopScheduling.Adaptive && i % 10 == 0)
                {
                    await LoseAsync(group.Loops[i / 10]);
                }
            }
        }

        Assert.InRange(reported.Count, meters.Thrown > 0 ? 1 : 0, 1);
        Assert.All(reported, static exception => Assert.IsType<ListenerException>(exception));
    }

    [Fact]
    public async Task Notifications_of_exhausted_threads_may_throw()
    {
        var (saturated, recovered) = (new SemaphoreSlim(0), new SemaphoreSlim(0));
        var reported = new List<Exception>();
        await using var group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = 1,
            Scheduling = LoopScheduling.Adaptive,
            MaxBlockedThreads = 1,
            OnThreadsSaturated = _ =>
            {
                saturated.Release();
                throw new InvalidOperationException("saturated");
            },
            OnThreadsRecovered = () =>
            {
                recovered.Release();
                throw new InvalidOperationException("recovered");
            },
            OnUnhandledException = (_, exception) => reported.Add(exception),
        });
        for (var i = 0; i < 3; i++)
        {
            using var release = new ManualResetEventSlim();
            Assert.True(group.Loops[0].TryPost(_ => release.Wait(Waiting.Limit), null));
            saturated.Await();
            release.Set();
            recovered.Await();
        }

        await RunAsync(group.Loops[0]);
        Assert.Single(reported);
    }

    [Fact]
    public async Task A_receiver_of_unhandled_exceptions_may_throw()
    {
        await using var group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = 1,
            Scheduling = TestScheduling.Value,
            OnUnhandledException = (_, exception) => throw new InvalidOperationException("told", exception),
        });
        var loop = group.Loops[0];
        for (var i = 0; i < 3; i++)
        {
            Assert.True(loop.TryPost(static _ => throw new InvalidOperationException("posted"), null));
            _ = loop.Schedule(TimeSpan.Zero, static _ => throw new InvalidOperationException("timer"), null);
        }

        await RunAsync(loop);
    }

    /// <summary>What a notification reaches may not cost its thread the loop, which the reactor goes on with.</summary>
    [Fact]
    public async Task A_notification_keeps_the_loop()
    {
        var kept = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        var call = new BlockingCall();
        await using var group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = 1,
            Scheduling = LoopScheduling.Adaptive,
            OnUnhandledException = (loop, _) =>
            {
                loop.Invoke(call);
                kept.SetResult(loop.IsCurrent);
            },
        });
        Assert.True(group.Loops[0].TryPostInternal(static _ => throw new InvalidOperationException("posted"), null));
        Assert.True(await kept.Task.Within());
        await RunAsync(group.Loops[0]);
        call.Release.Set();
    }

    /// <summary>A handler, or a watchdog, interrupts the thread that runs it: the interruption ends some later wait of that thread.</summary>
    [Theory]
    [InlineData(LoopScheduling.Inline)]
    [InlineData(LoopScheduling.Adaptive)]
    [InlineData(LoopScheduling.ThreadPool)]
    public async Task A_loop_survives_that_its_thread_is_interrupted(LoopScheduling scheduling)
    {
        var reported = new List<Exception>();
        await using var group = new EventLoopGroup(new EventLoopGroupOptions
        {
            LoopCount = 1,
            Scheduling = scheduling,
            OnUnhandledException = (_, exception) =>
            {
                lock (reported)
                {
                    reported.Add(exception);
                }
            },
        });
        var loop = group.Loops[0];
        for (var i = 0; i < 50; i++)
        {
            Assert.True(loop.TryPost(static _ => Thread.CurrentThread.Interrupt(), null));
            if (scheduling == LoopScheduling.Adaptive && i % 10 == 0)
            {
                // The late thread comes back to be parked, and is interrupted there.
                await LoseAsync(loop, interrupt: true);
            }

            // From several threads, so that the loop has to wait for its locks.
            await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(() => RunAsync(loop))));
        }

        Assert.All(reported, static exception => Assert.IsType<ThreadInterruptedException>(exception));
        Assert.False(loop.HasEnded);
    }

    private static Task RunAsync(EventLoop loop)
    {
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(loop.TryPost(static done => ((TaskCompletionSource)done!).SetResult(), done));
        return done.Task.Within();
    }

    /// <summary>Has a loop's thread lose it.</summary>
    private static async Task LoseAsync(EventLoop loop, bool interrupt = false)
    {
        var back = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var wentOn = new ManualResetEventSlim();
        Assert.True(loop.TryPost(
            _ =>
            {
                RetryOnInterrupt(() => loop.TryPost(_ => wentOn.Set(), null));
                RetryOnInterrupt(() => wentOn.Wait(Waiting.Limit));
                if (interrupt)
                {
                    Thread.CurrentThread.Interrupt();
                }

                back.SetResult();
            },
            null));
        await back.Task.Within();
    }

    /// <summary>Does something whatever interrupts the thread.</summary>
    private static void RetryOnInterrupt(Func<bool> action)
    {
        while (true)
        {
            try
            {
                Assert.True(action());
                return;
            }
            catch (ThreadInterruptedException)
            {
                // By an earlier call.
            }
        }
    }

    private sealed class BlockingCall : ILoopCall
    {
        internal ManualResetEventSlim Release { get; } = new();

        public LoopCallCost Cost { get; set; }

        public IThreadPoolWorkItem? Run()
        {
            _ = Release.Wait(Waiting.Limit);
            return null;
        }

        public void Execute() => Run();
    }

    private sealed class Echo(StreamSocket socket) : IStreamHandler
    {
        private readonly byte[] _buffer = new byte[100];

        public void OnReady(ReadyEvents events)
        {
            for (var result = socket.Receive(_buffer); result.Count > 0; result = socket.Receive(_buffer))
            {
                _ = socket.Send(_buffer.AsSpan(0, result.Count));
            }

            if ((events & (ReadyEvents.PeerClosed | ReadyEvents.HangUp | ReadyEvents.Error)) != 0)
            {
                socket.Close();
            }
        }

        public void OnLoopStopping() => socket.Close();

        public void OnClosed()
        {
        }
    }

    private sealed class ListenerException : Exception;

    /// <summary>Meters with a listener that throws whenever it is told of one instrument, or of any.</summary>
    private sealed class ThrowingMeters : IMeterFactory
    {
        private readonly MeterListener _listener;
        private readonly List<Meter> _meters = [];
        private int _thrown;

        internal ThrowingMeters(string name)
        {
            _listener = new MeterListener
            {
                InstrumentPublished = (instrument, listener) =>
                {
                    if (instrument.Meter.Scope == this && instrument.Name.StartsWith(name, StringComparison.Ordinal))
                    {
                        listener.EnableMeasurementEvents(instrument);
                    }
                },
            };
            _listener.SetMeasurementEventCallback<int>((_, _, _, _) => Throw());
            _listener.SetMeasurementEventCallback<long>((_, _, _, _) => Throw());
            _listener.SetMeasurementEventCallback<double>((_, _, _, _) => Throw());
            _listener.Start();
        }

        internal int Thrown => Volatile.Read(ref _thrown);

        public Meter Create(MeterOptions options)
        {
            options.Scope = this;
            var meter = new Meter(options);
            _meters.Add(meter);
            return meter;
        }

        public void Dispose()
        {
            _listener.Dispose();
            _meters.ForEach(static meter => meter.Dispose());
        }

        private void Throw()
        {
            Interlocked.Increment(ref _thrown);
            throw new ListenerException();
        }
    }
}
