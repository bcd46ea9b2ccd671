using System.Diagnostics;
using System.Net.Sockets;
using System.Text.Json;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

public sealed class OutOfDescriptorsTests
{
    [Fact]
    public async Task A_server_without_free_descriptors_serves_on_says_so_once_and_recovers()
    {
        var startInfo = new ProcessStartInfo("dotnet", ["exec", typeof(OutOfDescriptorsTests).Assembly.Location, OutOfDescriptorsEpisode.Argument])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        };
        using var child = Process.Start(startInfo)!;
        var output = await child.StandardOutput.ReadToEndAsync(CancellationToken.None).Within();
        await child.WaitForExitAsync(CancellationToken.None).Within();
        Assert.Equal(0, child.ExitCode);
        var episode = JsonSerializer.Deserialize<OutOfDescriptorsEpisode>(output)!;

        Assert.Equal(1, episode.Failing);
        Assert.Equal(nameof(SocketError.TooManyOpenSockets), episode.Reason);
        Assert.Equal(OutOfDescriptorsEpisode.Exchanges, episode.EchoesMeanwhile);
        Assert.Equal((0, 0), (episode.AcceptedTooEarly, episode.RecoveredTooEarly));
        Assert.Equal(OutOfDescriptorsEpisode.Waiters, episode.EchoesAfterwards);
        Assert.Equal(1, episode.Recovered);

        // A loop that spins uses all of the period.
        Assert.InRange(episode.ProcessorSeconds, 0, OutOfDescriptorsEpisode.Period.TotalSeconds / 2);
    }
}
