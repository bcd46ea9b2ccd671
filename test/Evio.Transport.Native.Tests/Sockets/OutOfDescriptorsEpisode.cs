using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Net.Sockets;
using System.Text.Json;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

/// <summary>
/// What a server went through while its process had no descriptor left. It takes place in a process of its own, which prints this as JSON.
/// </summary>
internal sealed record OutOfDescriptorsEpisode(
    int Failing, string? Reason, int RecoveredTooEarly, int AcceptedTooEarly, int EchoesMeanwhile, int EchoesAfterwards, int Recovered, double ProcessorSeconds)
{
    internal const string Argument = "--out-of-descriptors-episode";

    /// <summary>How many connections wait for a descriptor: some on each loop.</summary>
    internal const int Waiters = 60;

    /// <summary>For how many there is one before the others get theirs too: enough for one loop, too few for all.</summary>
    private const int First = 50;

    private const int Loops = 3;

    /// <summary>How many exchanges the connection that was there before makes.</summary>
    internal const int Exchanges = 100;

    /// <summary>How long the processor time is measured.</summary>
    internal static readonly TimeSpan Period = TimeSpan.FromSeconds(1);

    internal static async Task RunAsync() => Console.WriteLine(JsonSerializer.Serialize(await RunEpisodeAsync()));

    private static async Task<OutOfDescriptorsEpisode> RunEpisodeAsync()
    {
        var failingLoops = new ConcurrentDictionary<object, bool>();
        using var failures = new MeterListener
        {
            InstrumentPublished = static (instrument, listener) =>
            {
                if (instrument.Name == "evio.loop.accept.failures")
                {
                    listener.EnableMeasurementEvents(instrument);
                }
            },
        };
        failures.SetMeasurementEventCallback<long>((_, _, attributes, _) => failingLoops[attributes[0].Value!] = true);
        failures.Start();
        await using var group = new TestGroup(Loops);
        var failing = 0;
        var recovered = 0;
        string? reason = null;
        var options = new StreamListenerOptions
        {
            OnAcceptFailing = (_, exception) =>
            {
                reason = exception.SocketErrorCode.ToString();
                Interlocked.Increment(ref failing);
            },
            OnAcceptRecovered = _ => Interlocked.Increment(ref recovered),
        };
        await using var server = await new Server { CreateHandler = Echo }.ListenAsync(group, options: options);
        var (before, _) = server.Open();

        // A client's descriptor comes with the socket, not with the connection.
        var waiters = Enumerable.Range(0, Waiters).Select(static _ => NewClient()).ToList();
        int echoesMeanwhile, recoveredTooEarly, acceptedTooEarly;
        TimeSpan processorTime;
        using (await DescriptorShortage.BeginAsync())
        {
            waiters.ForEach(waiter => waiter.Connect(server.EndPoint));
            Waiting.Until(() => failingLoops.Count == Loops);
            echoesMeanwhile = Enumerable.Range(0, Exchanges).Count(_ => Exchange(before));
            var start = Environment.CpuUsage.TotalTime;
            Thread.Sleep(Period);
            processorTime = Environment.CpuUsage.TotalTime - start;
            acceptedTooEarly = server.AcceptedCount - 1;

            // Now some loops recover and others do not, until they have run out of descriptors again.
            DescriptorShortage.Release(First);
            Waiting.Until(() => server.AcceptedCount > First - 10);
            failingLoops.Clear();
            Waiting.Until(() => !failingLoops.IsEmpty);
            recoveredTooEarly = Volatile.Read(ref recovered);
        }

        var echoesAfterwards = waiters.Count(Exchange);

        // A loop says it after it has accepted and handed over, when the client may have its echo already.
        Waiting.Until(() => Volatile.Read(ref recovered) > 0);
        waiters.ForEach(static waiter => waiter.Dispose());
        return new OutOfDescriptorsEpisode(
            failing, reason, recoveredTooEarly, acceptedTooEarly, echoesMeanwhile, echoesAfterwards, recovered, processorTime.TotalSeconds);
    }

    private static RecordingHandler Echo(StreamSocket socket) => new(socket)
    {
        Ready = static (handler, _) =>
        {
            var buffer = new byte[1];
            while (handler.Socket.Receive(buffer).Count == 1)
            {
                handler.Socket.Send(buffer);
            }
        },
    };

    private static Socket NewClient() => new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)
    {
        ReceiveTimeout = (int)Waiting.Limit.TotalMilliseconds,
    };

    private static bool Exchange(Socket client)
    {
        var buffer = new byte[1];
        return client.Send([42]) == 1 && client.Receive(buffer) == 1 && buffer[0] == 42;
    }
}
