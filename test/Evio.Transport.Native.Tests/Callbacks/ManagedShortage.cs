using System.Diagnostics.Metrics;
using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>
/// A server on System.Net.Sockets whose process has no descriptor left, and no timer of the runtime's: its thread could not be started. It takes place
/// in a process of its own, which prints whether the server served before, meanwhile and afterwards.
/// </summary>
internal static class ManagedShortage
{
    internal const string Argument = "--managed-shortage";
    internal const string Served = "before meanwhile afterwards";

    internal static async Task RunAsync()
    {
        var failures = 0L;
        using var listener = new MeterListener
        {
            InstrumentPublished = static (instrument, listener) =>
            {
                if (instrument.Name == "evio.loop.accept.failures")
                {
                    listener.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((_, count, _, _) => Interlocked.Add(ref failures, count));
        listener.Start();
        await using var server = await EvioServer.StartAsync(EvioTests.EchoEvents(), "tcp-net://127.0.0.1:0");
        using var first = NewClient();
        using var second = NewClient();
        first.Connect(server.Addresses[0]);
        var served = new List<string>();
        Exchange(first, "before");
        using (await DescriptorShortage.BeginAsync())
        {
            second.Connect(server.Addresses[0]);

            // More than one attempt: it goes on after a pause.
            Support.Waiting.Until(() => Interlocked.Read(ref failures) > 2 || server.Completion.IsCompleted);
            Exchange(first, "meanwhile");
        }

        Exchange(second, "afterwards");
        Console.WriteLine(string.Join(' ', served));

        void Exchange(Socket client, string when)
        {
            try
            {
                if (client.Send("x"u8) == 1 && client.Receive(new byte[1]) == 1)
                {
                    served.Add(when);
                }
            }
            catch (SocketException)
            {
                // It did not.
            }
        }
    }

    private static Socket NewClient() => new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)
    {
        ReceiveTimeout = (int)Site.Limit.TotalMilliseconds,
    };
}
