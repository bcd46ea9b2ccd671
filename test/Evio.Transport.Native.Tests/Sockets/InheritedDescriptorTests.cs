using System.Net.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Sockets;

public sealed class InheritedDescriptorTests
{
    private const int F_GETFD = 1;
    private const int F_SETFD = 2;
    private const int F_GETFL = 3;
    private const int FD_CLOEXEC = 1;
    private const int O_NONBLOCK = 0x800;

    [Fact]
    public async Task A_listening_socket_of_another_is_served_and_left_open()
    {
        await using var group = new TestGroup(loops: 3, LoadBalance.RoundRobin);
        using var inherited = Listen();
        await using var server = await new Server().ListenOnDescriptorAsync(group, Descriptor(inherited), ownsDescriptor: false);

        Assert.Equal(inherited.LocalEndPoint, server.EndPoint);
        for (var i = 0; i < 3; i++)
        {
            server.Open();
        }

        Assert.All(group.Loops, static loop => Assert.Equal(1, loop.ConnectionCount));
        await server.Listener.CloseAsync().Within();

        // It still listens.
        using var client = Server.Dial(server.EndPoint);
        using var accepted = inherited.Accept();
        Assert.Equal(3, server.AcceptedCount);
    }

    [Fact]
    public async Task A_listening_socket_of_ones_own_is_closed_in_the_end()
    {
        await using var group = new TestGroup();
        using var original = Listen();
        var descriptor = TestLibc.dup(Descriptor(original));
        var kind = ProcessState.Descriptors()[descriptor];
        await using var server = await new Server().ListenOnDescriptorAsync(group, descriptor, ownsDescriptor: true);
        server.Open();

        await server.Listener.CloseAsync().Within();

        Assert.NotEqual(kind, ProcessState.Descriptors().GetValueOrDefault(descriptor));
    }

    [Fact]
    public async Task A_unix_socket_is_served_and_its_file_is_its_creators()
    {
        using var directory = new TemporaryDirectory();
        var endPoint = new UnixDomainSocketEndPoint(directory.File("socket"));
        await using var group = new TestGroup(loops: 2);
        using var inherited = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        inherited.Bind(endPoint);
        inherited.Listen();
        await using var server = await new Server().ListenOnDescriptorAsync(group, Descriptor(inherited), ownsDescriptor: false);

        Assert.Equal(endPoint.ToString(), server.EndPoint.ToString());
        server.Open();
        await server.Listener.CloseAsync().Within();

        Assert.True(File.Exists(endPoint.ToString()));
    }

    [Fact]
    public async Task The_descriptor_becomes_non_blocking_and_close_on_exec()
    {
        await using var group = new TestGroup();
        using var inherited = Listen();
        Assert.Equal(0, TestLibc.fcntl(Descriptor(inherited), F_SETFD, 0));

        await using var server = await new Server().ListenOnDescriptorAsync(group, Descriptor(inherited), ownsDescriptor: false);

        Assert.Equal(FD_CLOEXEC, TestLibc.fcntl(Descriptor(inherited), F_GETFD, 0));
        Assert.Equal(O_NONBLOCK, TestLibc.fcntl(Descriptor(inherited), F_GETFL, 0) & O_NONBLOCK);
    }

    [Fact]
    public async Task A_socket_that_is_only_bound_is_made_to_listen()
    {
        await using var group = new TestGroup();
        using var bound = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        bound.Bind(Server.Loopback);

        await using var server = await new Server().ListenOnDescriptorAsync(group, Descriptor(bound), ownsDescriptor: false);

        Assert.Equal(bound.LocalEndPoint, server.EndPoint);
        server.Open();
    }

    [Fact]
    public async Task A_socket_that_is_not_bound_is_refused()
    {
        await using var group = new TestGroup();
        using var unbound = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        using var unboundUnix = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

        Assert.Equal(SocketError.InvalidArgument, await RefusalAsync(group, Descriptor(unbound)));
        Assert.Equal(SocketError.InvalidArgument, await RefusalAsync(group, Descriptor(unboundUnix)));
    }

    [Fact]
    public async Task A_connected_socket_is_refused()
    {
        await using var group = new TestGroup();
        using var listener = Listen();
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        client.Connect(listener.LocalEndPoint!);

        Assert.Equal(SocketError.InvalidArgument, await RefusalAsync(group, Descriptor(client)));
    }

    [Fact]
    public async Task A_datagram_socket_is_refused()
    {
        await using var group = new TestGroup();
        using var datagrams = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        datagrams.Bind(Server.Loopback);

        Assert.Equal(SocketError.InvalidArgument, await RefusalAsync(group, Descriptor(datagrams)));
    }

    [Fact]
    public async Task A_descriptor_that_is_no_socket_is_refused()
    {
        await using var group = new TestGroup();
        using var file = File.OpenHandle(Environment.ProcessPath!);

        Assert.Equal(SocketError.NotSocket, await RefusalAsync(group, (int)file.DangerousGetHandle()));
    }

    [Fact]
    public async Task A_number_that_is_no_descriptor_is_refused()
    {
        await using var group = new TestGroup();

        Assert.Equal(SocketError.OperationAborted, await RefusalAsync(group, -1));
    }

    [Fact]
    public async Task A_descriptor_that_its_owner_shuts_down_is_reported_once_and_does_not_spin()
    {
        await using var group = new TestGroup();
        using var inherited = Listen();
        using var failing = new SemaphoreSlim(0);
        var options = new StreamListenerOptions { OnAcceptFailing = (_, _) => failing.Release() };
        var listener = await group.Group.ListenOnDescriptorAsync(Descriptor(inherited), false, static socket => socket.Close(), options).Within();

        inherited.Shutdown(SocketShutdown.Both);
        failing.Await();

        var used = ProcessState.ProcessorTimeDuring(TimeSpan.FromSeconds(1), TestGroup.ThreadName);
        Assert.InRange(used, TimeSpan.Zero, TimeSpan.FromSeconds(0.5));
        Assert.Equal(0, failing.CurrentCount);
        await listener.CloseAsync().Within();
    }

    [Fact]
    public async Task A_listener_whose_owner_closed_its_descriptor_closes_like_any_other()
    {
        await using var group = new TestGroup();
        using var inherited = Listen();
        var descriptor = TestLibc.dup(Descriptor(inherited));
        var listener = await group.Group.ListenOnDescriptorAsync(descriptor, false, static socket => socket.Close()).Within();

        Assert.Equal(0, TestLibc.close(descriptor));

        await listener.CloseAsync().Within();
    }

    private static Socket Listen()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(Server.Loopback);
        socket.Listen();
        return socket;
    }

    private static int Descriptor(Socket socket) => (int)socket.Handle;

    private static async Task<SocketError> RefusalAsync(TestGroup group, int descriptor) =>
        (await Assert.ThrowsAsync<SocketException>(() => group.Group.ListenOnDescriptorAsync(descriptor, false, static _ => { }))).SocketErrorCode;
}
