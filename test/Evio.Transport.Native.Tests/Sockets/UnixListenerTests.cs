using System.Net.Sockets;
using System.Runtime.Versioning;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

public sealed class UnixListenerTests : IAsyncLifetime
{
    private readonly TemporaryDirectory _directory = new();
    private readonly TestGroup _group = new(loops: 2);

    private string SocketFile => _directory.File("socket");

    private UnixDomainSocketEndPoint EndPoint => new(SocketFile);

    public ValueTask InitializeAsync() => default;

    public async ValueTask DisposeAsync()
    {
        await _group.DisposeAsync();
        _directory.Dispose();
    }

    [Fact]
    public async Task A_connection_has_the_path_on_one_side_and_no_name_on_the_other()
    {
        await using var server = await Server.StartAsync(_group, EndPoint);

        var (client, handler) = server.Open();

        Assert.Equal(SocketFile, server.EndPoint.ToString());
        Assert.Equal(SocketFile, handler.Socket.LocalEndPoint!.ToString());
        Assert.Equal("", Assert.IsType<UnixDomainSocketEndPoint>(handler.Socket.RemoteEndPoint).ToString());
        Assert.Equal(2, handler.Socket.Send([1, 2]).Count);
        Assert.Equal(2, client.Receive(new byte[3]));
    }

    [Fact]
    public async Task The_file_is_there_while_it_is_listened_on_and_gone_afterwards()
    {
        await using var server = await Server.StartAsync(_group, EndPoint);
        Assert.True(File.Exists(SocketFile));

        await server.Listener.CloseAsync().Within();

        Assert.False(File.Exists(SocketFile));
    }

    [Fact]
    public async Task The_file_is_gone_when_the_group_was_disposed()
    {
        await using var group = new TestGroup();
        await Server.StartAsync(group, EndPoint);

        await group.DisposeAsync();

        Assert.False(File.Exists(SocketFile));
    }

    [Fact]
    public async Task A_listener_whose_directory_is_gone_closes_like_any_other()
    {
        var directory = Directory.CreateDirectory(_directory.File("gone"));
        await using var server = await Server.StartAsync(_group, new UnixDomainSocketEndPoint(_directory.File("gone/socket")));
        directory.Delete(recursive: true);

        await server.Listener.CloseAsync().Within();
    }

    [Fact]
    public async Task A_stale_socket_file_is_replaced()
    {
        MakeStaleSocketFile();

        await using var server = await Server.StartAsync(_group, EndPoint);

        server.Open();
    }

    [Fact]
    public async Task A_relative_path_is_listened_on_as_it_is()
    {
        var relative = Path.GetRelativePath(Environment.CurrentDirectory, SocketFile);
        await using var server = await Server.StartAsync(_group, new UnixDomainSocketEndPoint(relative));

        Assert.True(File.Exists(SocketFile));
        server.Open();
        await server.Listener.CloseAsync().Within();
        Assert.False(File.Exists(SocketFile));
    }

    [Fact]
    public async Task The_file_of_a_server_that_lives_is_refused_and_left()
    {
        await using var other = new TestGroup();
        await using var server = await Server.StartAsync(other, EndPoint);

        await AssertInUseAsync();

        // Whoever asked whether it lives did not connect: the next connection is this one.
        var (client, handler) = server.Open();
        Assert.Equal(1, handler.Socket.Send([1]).Count);
        Assert.Equal(1, client.Receive(new byte[1]));
    }

    [Fact]
    public async Task The_file_of_a_server_whose_backlog_is_full_is_refused_and_left()
    {
        using var busy = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        busy.Bind(EndPoint);
        busy.Listen(1);
        var waiting = new List<Socket>();
        try
        {
            Waiting.Until(() =>
            {
                var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { Blocking = false };
                waiting.Add(client);
                try
                {
                    client.Connect(EndPoint);
                    return false;
                }
                catch (SocketException exception) when (exception.SocketErrorCode == SocketError.WouldBlock)
                {
                    return true;
                }
            });

            await AssertInUseAsync();

            Assert.True(File.Exists(SocketFile));
        }
        finally
        {
            waiting.ForEach(static socket => socket.Dispose());
        }
    }

    [Fact]
    public async Task The_file_of_a_datagram_socket_is_refused_and_left()
    {
        using var datagrams = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        datagrams.Bind(EndPoint);

        await AssertInUseAsync();

        Assert.True(File.Exists(SocketFile));
    }

    [Fact]
    public async Task A_regular_file_is_refused_and_left()
    {
        await File.WriteAllTextAsync(SocketFile, "precious", CancellationToken.None);

        await AssertInUseAsync();

        Assert.Equal("precious", await File.ReadAllTextAsync(SocketFile, CancellationToken.None));
    }

    [Fact]
    public async Task A_directory_is_refused_and_left()
    {
        Directory.CreateDirectory(SocketFile);

        await AssertInUseAsync();

        Assert.True(Directory.Exists(SocketFile));
    }

    [Fact]
    public async Task A_symbolic_link_to_a_stale_socket_file_is_refused_and_left()
    {
        MakeStaleSocketFile();
        var link = _directory.File("link");
        File.CreateSymbolicLink(link, SocketFile);

        await AssertInUseAsync(new UnixDomainSocketEndPoint(link));

        Assert.NotNull(new FileInfo(link).LinkTarget);
        Assert.True(File.Exists(SocketFile));
    }

    [Fact]
    public async Task A_directory_that_does_not_exist_is_refused()
    {
        var exception = await Assert.ThrowsAsync<SocketException>(
            () => _group.ListenAsync(new UnixDomainSocketEndPoint(_directory.File("missing/socket")), static _ => { }));

        Assert.Equal(SocketError.AddressNotAvailable, exception.SocketErrorCode);
    }

    [Fact]
    public async Task A_file_whose_name_looks_like_an_abstract_address_is_a_file_like_any_other()
    {
        // Relative: in any other path the '@' is not the first character.
        var name = $"@{Guid.NewGuid():N}";
        await using var server = await StartAsync("600", new UnixDomainSocketEndPoint(name));
        Assert.Equal("600", ModeOf(name));

        await server.Listener.CloseAsync().Within();

        Assert.False(File.Exists(name));
    }

    [Fact]
    public async Task An_abstract_address_works_without_a_file()
    {
        var endPoint = new UnixDomainSocketEndPoint($"\0evio-{Guid.NewGuid():N}");
        await using (var server = await Server.StartAsync(_group, endPoint))
        {
            Assert.Equal(endPoint.ToString(), server.EndPoint.ToString());
            server.Open();
            await AssertInUseAsync(endPoint);
        }

        await using var next = await Server.StartAsync(_group, endPoint);
        next.Open();
    }

    [Fact]
    public async Task Closing_accepts_the_backlog_first()
    {
        await using var server = await Server.StartAsync(_group, EndPoint);
        server.Listener.Pause();
        await _group.SettleAsync();
        for (var i = 0; i < 10; i++)
        {
            server.Connect();
        }

        await server.Listener.CloseAsync().Within();

        Assert.Equal(10, server.AcceptedCount);
    }

    [Theory]
    [InlineData("600")]
    [InlineData("660")]
    [InlineData("777")]
    [InlineData("000")]
    public async Task The_file_has_the_mode_that_was_asked_for_whatever_the_umask(string mode)
    {
        await using var server = await StartAsync(mode);

        Assert.Equal(mode, ModeOf(SocketFile));
        server.Open();
    }

    [Fact]
    public async Task Without_a_mode_the_file_has_what_the_umask_leaves()
    {
        await using var server = await Server.StartAsync(_group, EndPoint);

        using var plain = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        plain.Bind(new UnixDomainSocketEndPoint(_directory.File("plain")));
        Assert.Equal(ModeOf(_directory.File("plain")), ModeOf(SocketFile));
    }

    [Fact]
    public async Task The_file_never_has_a_wider_mode_and_never_takes_a_connection_with_another()
    {
        Assert.SkipUnless(File.Exists("/usr/bin/strace"), "strace is not installed.");

        // From the call that makes the file on, no permission is added that was not asked for: seen from outside, by the kernel's own record of the calls.
        var trace = _directory.File("trace");
        using var child = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo(
            "strace",
            ["-f", "-o", trace, "-e", "trace=fchmod,bind,fchmodat,?fchmodat2,chmod,listen",
                "dotnet", "exec", typeof(UnixListenerTests).Assembly.Location, UnixModeProbe.Argument, SocketFile])
        { RedirectStandardInput = true })!;
        await child.WaitForExitAsync(CancellationToken.None).Within();
        Assert.Equal(0, child.ExitCode);

        var calls = (await File.ReadAllLinesAsync(trace, CancellationToken.None))
            .SkipWhile(line => !line.Contains("fchmod(", StringComparison.Ordinal) || !line.Contains("0620", StringComparison.Ordinal))
            .Select(static line => line.Split(' ', 2, StringSplitOptions.RemoveEmptyEntries)[1].Split('(')[0].Trim())
            .ToList();
        Assert.Equal(["fchmod", "bind"], calls[..2]);
        Assert.InRange(calls.IndexOf("listen"), 3, 4);
        Assert.All(calls[2..calls.IndexOf("listen")], static call => Assert.Contains("chmod", call, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_mode_beyond_the_permissions_is_refused_and_nothing_is_made()
    {
        var options = new StreamListenerOptions { UnixSocketMode = UnixFileMode.StickyBit | UnixFileMode.UserWrite };

        var exception = await Assert.ThrowsAsync<ArgumentException>(() => _group.ListenAsync(EndPoint, static _ => { }, options));

        Assert.Contains("UnixSocketMode is 1200", exception.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(SocketFile));
    }

    [Theory]
    [InlineData("file")]
    [InlineData("directory")]
    [InlineData("link")]
    [UnsupportedOSPlatform("windows")]
    public async Task The_mode_of_what_is_no_socket_is_left_alone(string kind)
    {
        var other = _directory.File("other");
        await File.WriteAllTextAsync(other, "precious", CancellationToken.None);
        FileSystemInfo there = kind switch
        {
            "file" => new FileInfo(SocketFile),
            "directory" => Directory.CreateDirectory(SocketFile),
            _ => File.CreateSymbolicLink(SocketFile, other),
        };
        if (kind == "file")
        {
            File.Copy(other, SocketFile);
        }

        File.SetUnixFileMode(kind == "link" ? other : SocketFile, (UnixFileMode)0b111_101_100);

        await Assert.ThrowsAsync<SocketException>(() => StartAsync("600"));

        there.Refresh();
        Assert.True(there.Exists);
        Assert.Equal("754", ModeOf(kind == "link" ? other : SocketFile));
    }

    [Fact]
    public async Task A_mode_has_no_meaning_for_an_abstract_address()
    {
        await using var server = await StartAsync("600", new UnixDomainSocketEndPoint($"\0evio-{Guid.NewGuid():N}"));

        server.Open();
    }

    private Task<Server> StartAsync(string mode, UnixDomainSocketEndPoint? endPoint = null) =>
        Server.StartAsync(_group, endPoint ?? EndPoint, new StreamListenerOptions { UnixSocketMode = (UnixFileMode)Convert.ToInt32(mode, 8) });

    private static string ModeOf(string file) => Convert.ToString((int)new FileInfo(file).UnixFileMode, 8).PadLeft(3, '0');

    private void MakeStaleSocketFile()
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        var elsewhere = _directory.File("elsewhere");
        socket.Bind(new UnixDomainSocketEndPoint(elsewhere));
        socket.Listen();

        // The BCL removes the file under the name it knows.
        File.Move(elsewhere, SocketFile);
        socket.Dispose();
        Assert.True(File.Exists(SocketFile));
    }

    private async Task AssertInUseAsync(UnixDomainSocketEndPoint? endPoint = null)
    {
        var exception = await Assert.ThrowsAsync<SocketException>(() => _group.ListenAsync(endPoint ?? EndPoint, static _ => { }));

        Assert.Equal(SocketError.AddressAlreadyInUse, exception.SocketErrorCode);
    }
}
