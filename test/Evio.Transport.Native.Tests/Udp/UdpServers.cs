using System.Net;
using System.Text;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Udp;

/// <summary>Servers for tests that have the same outcome on the poller and on the fallback.</summary>
internal static class UdpServers
{
    internal static TheoryData<string> Schemes => ["udp", "udp-net"];

    /// <summary>A server on a free port of the IPv4 loopback address.</summary>
    internal static Task<EvioServer> StartAsync(string scheme, Events events) => TestScheduling.StartAsync(events, $"{scheme}://127.0.0.1:0");

    internal static Task<EvioServer> StartAsync(string scheme, DataCallback data) => StartAsync(scheme, new Events { Data = data });

    internal static EvioAction Echo(Connection connection, ReadOnlySpan<byte> input)
    {
        connection.Write(input);
        return EvioAction.None;
    }

    internal static void Write(this Connection connection, string text) => connection.Write(Encoding.UTF8.GetBytes(text));

    internal static int Port(this EvioServer server) => ((IPEndPoint)server.Addresses[0]).Port;
}
