using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

/// <summary>A process that listens once at a path with a mode which both the umask and the default differ from, for whoever traces its calls.</summary>
internal static class UnixModeProbe
{
    internal const string Argument = "--unix-mode-probe";

    internal static async Task RunAsync(string file)
    {
        await using var group = new TestGroup();
        var mode = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupWrite;
        await using var server = await Server.StartAsync(
            group, new UnixDomainSocketEndPoint(file), new StreamListenerOptions { UnixSocketMode = mode });
    }
}
