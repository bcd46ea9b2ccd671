using Evio.Transport.Native;

namespace Evio.Samples.WebApp.Native;

/// <summary>Sends back what it receives: the smallest server of the callback API, for TCP and for UDP.</summary>
internal static class EchoServer
{
    public static Events Create(int loops) => new()
    {
        NumLoops = loops,
        Data = static (connection, input) =>
        {
            connection.Write(input);
            return EvioAction.None;
        },
    };
}
