using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class SecurityTests
{
    [Theory, EvioTransports]
    public async Task A_child_process_inherits_no_descriptor(TransportKind kind)
    {
        Assert.SkipUnless(Directory.Exists("/proc/self/fd"), "This system has no /proc/self/fd.");
        using var path = new UnixSocketPath();
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, new HostSettings
        {
            Kestrel = options => options.Listen(path.EndPoint, static listen => listen.UseConnectionHandler<Applications.RawEcho>()),
        });
        var transport = host.Services.GetRequiredService<EvioTransportFactory>();
        using var accepted = await host.ConnectAsync();
        await using var tcp = await transport.ConnectAsync(host.EndPoint).OrTimeout();
        await using var unix = await transport.ConnectAsync(path.EndPoint).OrTimeout();
        await Eventually.HoldsAsync(() => transport.Loops.Sum(static loop => loop.ConnectionCount) == 5);

        using var child = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", "ls -l /proc/self/fd"]) { RedirectStandardOutput = true })!;
        var listing = await child.StandardOutput.ReadToEndAsync().OrTimeout();
        await child.WaitForExitAsync().OrTimeout();

        // What stands beside the standard streams in this process. Those may be sockets too, and the child has them.
        var own = Descriptors().Where(static entry => entry.Number > 2).Select(static entry => entry.Target).ToHashSet();
        own.ExceptWith(Descriptors().Where(static entry => entry.Number <= 2).Select(static entry => entry.Target));
        own.RemoveWhere(static target => target.StartsWith('/') || target.StartsWith("pipe:", StringComparison.Ordinal));
        Assert.Contains("anon_inode:[eventpoll]", own);
        Assert.Contains("anon_inode:[eventfd]", own);
        Assert.True(own.Count(static target => target.StartsWith("socket:", StringComparison.Ordinal)) >= 8, string.Join(' ', own));
        Assert.Contains("/proc/", listing, StringComparison.Ordinal);
        Assert.All(own, target => Assert.DoesNotContain(target, listing, StringComparison.Ordinal));
    }

    [Theory, EvioTransports]
    public async Task Connections_that_drip_or_say_nothing_cost_others_nothing_and_hold_at_most_a_block(TransportKind kind)
    {
        // Two descriptors each: both ends are in this process, and other tests run beside this one.
        var count = Math.Min(2000, (DescriptorLimit() - 2000) / 2);
        Assert.SkipUnless(count >= 100, "The limit of open files is too low (ulimit -n).");
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using var host = await TransportHost.StartAsync(
            kind,
            static context => context.Response.WriteAsync("served"),
            new HostSettings
            {
                Services = services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools),
                Kestrel = static options => options.Limits.RequestHeadersTimeout = options.Limits.KeepAliveTimeout = TimeSpan.FromMinutes(10),
            });
        var loops = host.Services.GetRequiredService<EvioTransportFactory>().Loops;
        using var client = host.CreateClient();
        var slow = new List<Socket>(count);
        try
        {
            for (var i = 0; i < count; i++)
            {
                slow.Add(await host.ConnectAsync());
                if (i % 2 == 0)
                {
                    await slow[i].SendAllAsync("GET / HTTP/1.1\r\nHost: ").OrTimeout();
                }

                if (i % 50 == 0)
                {
                    Assert.Equal("served", await client.GetStringAsync("/").OrTimeout());
                }
            }

            await Eventually.HoldsAsync(() => loops.Sum(static loop => loop.ConnectionCount) == count + 1);
            for (var drop = 0; drop < 5; drop++)
            {
                for (var i = 0; i < count; i += 2)
                {
                    await slow[i].SendAllAsync("h").OrTimeout();
                }

                Assert.Equal("served", await client.GetStringAsync("/").OrTimeout());
            }

            // A block for each begun request, none for those that said nothing, and what the one client has.
            await Eventually.HoldsAsync(() => pools.Outstanding >= count / 2);
            Assert.InRange(pools.Outstanding, count / 2, (count / 2) + 16);

            // And they are connections like any other: whoever comes to an end is served.
            await slow[0].SendAllAsync("\r\n\r\n").OrTimeout();
            Assert.EndsWith("served", await slow[0].ReceiveUntilAsync("served").OrTimeout(), StringComparison.Ordinal);
        }
        finally
        {
            slow.ForEach(static socket => socket.Dispose());
        }

        await Eventually.HoldsAsync(() => loops.Sum(static loop => loop.ConnectionCount) <= 1);
        Assert.Equal("served", await client.GetStringAsync("/").OrTimeout());
        await Eventually.HoldsAsync(() => pools.Outstanding <= 16, () => $"{pools.Outstanding} blocks");
    }

    private static int DescriptorLimit()
    {
        const string Key = "Max open files";
        const string Limits = "/proc/self/limits";
        return File.Exists(Limits)
            ? int.Parse(
                File.ReadLines(Limits).Single(static line => line.StartsWith(Key, StringComparison.Ordinal))[Key.Length..]
                    .Split(' ', StringSplitOptions.RemoveEmptyEntries)[0],
                CultureInfo.InvariantCulture)
            : 0;
    }

    private static List<(int Number, string Target)> Descriptors() => [.. new DirectoryInfo("/proc/self/fd").EnumerateFileSystemInfos()
        .Where(static entry => entry.LinkTarget is not null)
        .Select(static entry => (int.Parse(entry.Name, CultureInfo.InvariantCulture), entry.LinkTarget ?? ""))];
}
