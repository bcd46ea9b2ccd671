using System.Reflection;
using System.Runtime.InteropServices;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>Event loops whose pollers fail for good, one after the other.</summary>
public sealed partial class LoopFailureTests
{
    private const int LoopCount = 2;

    [Theory, EvioTransports]
    public async Task The_others_serve_on_and_after_the_last_one_the_application_stops(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync("ok"),
            new HostSettings { Transport = new TransportSettings { LoopCount = LoopCount } });
        var loops = host.Services.GetRequiredService<EvioTransportFactory>().Loops;
        var stopping = host.Services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping;

        await FailAsync(loops[0]);
        for (var i = 0; i < 20; i++)
        {
            // Each over a connection of its own.
            using var client = host.CreateClient();
            Assert.Equal("ok", await client.GetStringAsync("/").OrTimeout());
        }

        Assert.False(stopping.IsCancellationRequested);
        await FailAsync(loops[1]);

        await stopping.WhenCancelled();
        Assert.Equal(LoopCount, host.Logs.OfTransport.Count(static entry => entry is { EventId.Id: 109, Level: LogLevel.Error }));
        Assert.Single(host.Logs.OfTransport, static entry => entry is { EventId.Id: 110, Level: LogLevel.Critical });
        await host.StopAsync().OrTimeout();
    }

    /// <summary>Puts another file in the place of the loop's epoll instance, so that each wait fails.</summary>
    private static async Task FailAsync(EventLoop loop)
    {
        var poller = typeof(EventLoop).GetField("_poller", BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(loop)!;
        var epoll = (int)poller.GetType().GetField("_epoll", BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(poller)!;
        using var file = File.OpenHandle("/dev/null");
        Assert.Equal(epoll, dup2((int)file.DangerousGetHandle(), epoll));
        _ = loop.TryPost(static _ => { }, null);
        await Eventually.HoldsAsync(() => loop.HasEnded);
    }

    [LibraryImport("libc")]
    private static partial int dup2(int descriptor, int target);
}
