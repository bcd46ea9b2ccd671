using System.Diagnostics;
using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>Whose a Unix-domain socket's file is, when several servers want it.</summary>
public sealed class SocketFileTests
{
    public static TheoryData<string> UnixSchemes => Site.UnixSchemes;

    public static TheoryData<string, string> TwoSchemes
    {
        get
        {
            var cases = new TheoryData<string, string>();
            foreach (string first in Site.UnixSchemes)
            {
                foreach (string second in Site.UnixSchemes)
                {
                    cases.Add(first, second);
                }
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(TwoSchemes))]
    public async Task FileOfASuccessor_IsLeft(string first, string second)
    {
        await using var site = new Site(first);
        var server = await site.StartAsync(EvioTests.EchoEvents());
        File.Delete(site.Path);
        await using var successor = await EvioServer.StartAsync(EvioTests.EchoEvents(), $"{second}://{site.Path}").Within();

        await server.StopAsync().Within();

        using var client = await site.ConnectAsync(successor);
        await client.ExpectEchoAsync("x");
        await successor.StopAsync().Within();
        Assert.False(File.Exists(site.Path));
    }

    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task FileOfAnotherKindInItsPlace_IsLeft(string scheme)
    {
        await using var site = new Site(scheme);
        var server = await site.StartAsync(EvioTests.EchoEvents());
        File.Delete(site.Path);
        await File.WriteAllTextAsync(site.Path, "precious", TestContext.Current.CancellationToken);

        await server.StopAsync().Within();

        Assert.Equal("precious", await File.ReadAllTextAsync(site.Path, TestContext.Current.CancellationToken));
    }

    [Theory]
    [MemberData(nameof(TwoSchemes))]
    public async Task OfStartsOnOneStaleFile_OneSucceedsAndIsReached(string first, string second)
    {
        const int Rounds = 100;
        await using var site = new Site(first);
        for (var round = 0; round < Rounds; round++)
        {
            MakeStaleSocketFile(site.Path);
            using var together = new Barrier(2);
            var started = new List<EvioServer>();
            var refused = new List<SocketError>();
            foreach (var start in new[] { first, second }.Select(scheme => Task.Run(async () =>
            {
                together.SignalAndWait(Site.Limit);
                return await EvioServer.StartAsync(EvioTests.EchoEvents(), $"{scheme}://{site.Path}");
            })).ToList())
            {
                try
                {
                    started.Add(await start.Within());
                }
                catch (SocketException exception)
                {
                    refused.Add(exception.SocketErrorCode);
                }
            }

            Assert.Equal([SocketError.AddressAlreadyInUse], refused);
            var server = Assert.Single(started);
            using (var client = await Client.ConnectAsync(server.Addresses[0]))
            {
                await client.ExpectEchoAsync("x");
            }

            await server.StopAsync().Within();
            Assert.Empty(Directory.GetFileSystemEntries(Path.GetDirectoryName(site.Path)!));
        }
    }

    [Theory]
    [MemberData(nameof(TwoSchemes))]
    public async Task StartsAndStopsAllAtOnce_LeaveNoServerWithoutItsFile(string first, string second)
    {
        const int Rounds = 25;
        await using var site = new Site(first);
        await Task.WhenAll(new[] { first, second, first, second }.Select(scheme => Task.Run(async () =>
        {
            for (var round = 0; round < Rounds; round++)
            {
                EvioServer server;
                try
                {
                    server = await EvioServer.StartAsync(EvioTests.EchoEvents(), $"{scheme}://{site.Path}");
                }
                catch (SocketException exception) when (exception.SocketErrorCode == SocketError.AddressAlreadyInUse)
                {
                    continue;
                }

                // It has the file until it stops.
                using var client = await Client.ConnectAsync(server.Addresses[0]);
                await client.ExpectEchoAsync("x");
                await server.StopAsync();
            }
        }))).Within();
        Assert.False(File.Exists(site.Path));
    }

    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task DirectoryThatSomebodyElseHasLocked_IsNoHindrance(string scheme)
    {
        await using var site = new Site(scheme);
        using var locked = Process.Start(new ProcessStartInfo("flock", [Path.GetDirectoryName(site.Path)!, "sh", "-c", "echo locked; read line"])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!;
        Assert.Equal("locked", await locked.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken).AsTask().Within());

        var server = await site.StartAsync(EvioTests.EchoEvents());

        using var client = await site.ConnectAsync();
        await client.ExpectEchoAsync("x");
        await server.StopAsync().Within();
        Assert.False(File.Exists(site.Path));
        locked.StandardInput.Close();
        await locked.WaitForExitAsync(CancellationToken.None).Within();
    }

    [Theory]
    [MemberData(nameof(UnixSchemes))]
    public async Task ClientBoundToALongPath_IsServed(string scheme)
    {
        await using var site = new Site(scheme);
        await site.StartAsync(EvioTests.EchoEvents());
        foreach (var length in (int[])[site.Path.Length + 30, 107])
        {
            var own = site.Path + new string('x', length - site.Path.Length);
            using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            client.Bind(new UnixDomainSocketEndPoint(own));
            await client.ConnectAsync(new UnixDomainSocketEndPoint(site.Path)).Within();

            await client.SendAsync("x"u8.ToArray()).Within();

            Assert.Equal(1, await client.ReceiveAsync(new byte[2]).Within());
        }

        Assert.False(site.Server!.Completion.IsCompleted);
    }

    [Fact]
    public async Task ClientBoundToALongPath_IsServedAtAnAbstractAddress()
    {
        using var directory = new TemporaryDirectory();
        var name = $"evio-{Guid.NewGuid():N}"[..12];
        await using var server = await EvioServer.StartAsync(EvioTests.EchoEvents(), $"unix-net://@{name}").Within();
        using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        client.Bind(new UnixDomainSocketEndPoint(directory.File(new string('x', 100 - directory.Path.Length))));
        await client.ConnectAsync(new UnixDomainSocketEndPoint('\0' + name)).Within();

        await client.SendAsync("x"u8.ToArray()).Within();

        Assert.Equal(1, await client.ReceiveAsync(new byte[2]).Within());
    }

    [Theory]
    [InlineData("unix", false)]
    [InlineData("unix", true)]
    [InlineData("unix-net", false)]
    [InlineData("unix-net", true)]
    public async Task ReadOnlyFileSystem_IsNamedAsTheReason(string scheme, bool stale)
    {
        using var directory = new TemporaryDirectory();
        var socket = directory.File("socket");

        MakeStaleSocketFile(directory.File("stale"));

        // A file system of the child's own, which nobody else sees, and in it a copy of the file if there is to be one.
        using var child = Process.Start(new ProcessStartInfo(
            "unshare",
            ["-Urm", "sh", "-c", "mount -t tmpfs none /mnt && $1 \"$0/stale\" /mnt/socket && mount --move /mnt \"$0\" && mount -o remount,ro \"$0\" && shift && "
                    + "exec dotnet exec \"$@\"",
                directory.Path, stale ? "cp -a" : "true", typeof(SocketFileTests).Assembly.Location, BindProbe.Argument, $"{scheme}://{socket}"])
        { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        var output = await child.StandardOutput.ReadToEndAsync(CancellationToken.None).Within();
        await child.WaitForExitAsync(CancellationToken.None).Within();
        Assert.SkipWhen(output.Length == 0, "This process may not mount a file system of its own.");

        Assert.Contains(socket, output, StringComparison.Ordinal);
        Assert.Contains("its file system is read-only", output, StringComparison.Ordinal);
    }

    private static void MakeStaleSocketFile(string path)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(path + ".moved"));

        // The BCL removes the file under the name it knows.
        File.Move(path + ".moved", path);
    }
}
