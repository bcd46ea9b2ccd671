using System.Diagnostics;
using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

public sealed class CloseOnExecTests
{
    [Fact]
    public async Task A_child_process_inherits_no_descriptor()
    {
        using var directory = new TemporaryDirectory();
        await using var group = new TestGroup(loops: 3);
        await using var tcp = await Server.StartAsync(group);
        await using var unix = await Server.StartAsync(group, new UnixDomainSocketEndPoint(directory.File("socket")));
        tcp.Open();
        unix.Open();

        var startInfo = new ProcessStartInfo("/bin/sh", ["-c", "ls -l /proc/self/fd"]) { RedirectStandardOutput = true };
        using var child = Process.Start(startInfo)!;
        var listing = await child.StandardOutput.ReadToEndAsync(CancellationToken.None).Within();
        await child.WaitForExitAsync(CancellationToken.None).Within();

        // Whatever the test's own parent left open here is no business of this test, so only what the reactor opens is looked for.
        var own = ProcessState.Descriptors().Where(static entry => entry.Value.StartsWith("socket:", StringComparison.Ordinal))
            .Select(static entry => entry.Value);
        Assert.Contains("/proc/", listing, StringComparison.Ordinal);
        Assert.DoesNotContain("eventpoll", listing, StringComparison.Ordinal);
        Assert.DoesNotContain("eventfd", listing, StringComparison.Ordinal);
        Assert.All(own.Except(Inherited), socket => Assert.DoesNotContain(socket, listing, StringComparison.Ordinal));
    }

    /// <summary>The standard streams may be sockets.</summary>
    private static IEnumerable<string> Inherited =>
        ProcessState.Descriptors().Where(static entry => entry.Key <= 2).Select(static entry => entry.Value);
}
