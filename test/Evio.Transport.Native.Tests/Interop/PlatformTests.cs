using System.Net;
using System.Net.Sockets;
using Evio.Transport.Native.Interop;
using Evio.Transport.Native.Sockets;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Interop;

/// <summary>What differs between systems, as far as this one can show it: the values of the others, and what they do without Linux's calls.</summary>
public sealed unsafe class PlatformTests
{
    [Fact]
    public void This_system_is_one_of_them()
    {
        Assert.Equal((OperatingSystem.IsLinux(), OperatingSystem.IsMacOS(), OperatingSystem.IsFreeBSD()), (Platform.IsLinux, Platform.IsDarwin, Platform.IsFreeBsd));
        Assert.True(Platform.HasPoller);
    }

    [Fact]
    public void The_constants_are_this_systems()
    {
        // The BCL's tables say so, too: an option that it sets reads back under the number chosen here.
        using var socket = new Socket(AddressFamily.InterNetworkV6, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, DualMode = false };
        socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, 71);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, 72);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, 73);

        Assert.NotEqual(0, Option(socket, Platform.SOL_SOCKET, Platform.SO_KEEPALIVE));
        Assert.NotEqual(0, Option(socket, Platform.IPPROTO_TCP, Platform.TCP_NODELAY));
        Assert.NotEqual(0, Option(socket, Platform.IPPROTO_IPV6, Platform.IPV6_V6ONLY));
        Assert.Equal(71, Option(socket, Platform.IPPROTO_TCP, Platform.TCP_KEEPIDLE));
        Assert.Equal(72, Option(socket, Platform.IPPROTO_TCP, Platform.TCP_KEEPINTVL));
        Assert.Equal(73, Option(socket, Platform.IPPROTO_TCP, Platform.TCP_KEEPCNT));
        Assert.Equal(Platform.SOCK_STREAM, Option(socket, Platform.SOL_SOCKET, Platform.SO_TYPE));
        Assert.Equal(socket.ReceiveBufferSize, Option(socket, Platform.SOL_SOCKET, Platform.SO_RCVBUF));
        Assert.Equal(socket.SendBufferSize, Option(socket, Platform.SOL_SOCKET, Platform.SO_SNDBUF));
        Assert.Equal(0, Option(socket, Platform.SOL_SOCKET, Platform.SO_ERROR));
    }

    [Fact]
    public void The_constants_of_Darwin_are_those_of_its_headers()
    {
        Assert.Equal((30, 0xFFFF, 0x4, 0x1008, 0x1007), (Darwin.AF_INET6, Darwin.SOL_SOCKET, Darwin.SO_REUSEADDR, Darwin.SO_TYPE, Darwin.SO_ERROR));
        Assert.Equal((0x1001, 0x1002, 0x8, 0x80), (Darwin.SO_SNDBUF, Darwin.SO_RCVBUF, Darwin.SO_KEEPALIVE, Darwin.SO_LINGER));
        Assert.Equal((0x200, 0x2, 0x1022), (Darwin.SO_REUSEPORT, Darwin.SO_ACCEPTCONN, Darwin.SO_NOSIGPIPE));
        Assert.Equal((0x10, 0x101, 0x102, 27, 4), (Darwin.TCP_KEEPALIVE, Darwin.TCP_KEEPINTVL, Darwin.TCP_KEEPCNT, Darwin.IPV6_V6ONLY, Darwin.O_NONBLOCK));
        Assert.Equal((-2, 0x20), (Darwin.AT_FDCWD, Darwin.AT_SYMLINK_NOFOLLOW));
        Assert.Equal(0x100_0000, Darwin.O_CLOEXEC);
        Assert.Equal((-1, -2, -10), (Darwin.EVFILT_READ, Darwin.EVFILT_WRITE, Darwin.EVFILT_USER));
        Assert.Equal((0x1, 0x2, 0x20, 0x40), (Darwin.EV_ADD, Darwin.EV_DELETE, Darwin.EV_CLEAR, Darwin.EV_RECEIPT));
        Assert.Equal((0x2000, 0x4000, 0x8000, 0x01000000u), (Darwin.EV_OOBAND, Darwin.EV_ERROR, Darwin.EV_EOF, Darwin.NOTE_TRIGGER));
    }

    [Fact]
    public void The_constants_of_FreeBSD_are_those_of_its_headers()
    {
        Assert.Equal((28, 0x10000000, 0x20000000, 0x20000), (FreeBsd.AF_INET6, FreeBsd.SOCK_CLOEXEC, FreeBsd.SOCK_NONBLOCK, FreeBsd.MSG_NOSIGNAL));
        Assert.Equal((-100, 0x200), (FreeBsd.AT_FDCWD, FreeBsd.AT_SYMLINK_NOFOLLOW));
        Assert.Equal(0x10_0000, FreeBsd.O_CLOEXEC);
        Assert.Equal((256, 512, 1024, -11), (FreeBsd.TCP_KEEPIDLE, FreeBsd.TCP_KEEPINTVL, FreeBsd.TCP_KEEPCNT, FreeBsd.EVFILT_USER));
    }

    [Fact]
    public void The_family_of_an_address_stands_behind_its_length_or_at_the_beginning()
    {
        Assert.Equal(30, Platform.FamilyOf([28, 30, 0, 80], hasLength: true));
        Assert.Equal(10, Platform.FamilyOf([10, 0, 0, 80], hasLength: false));
        Assert.Equal(Platform.AF_INET6, Platform.FamilyOf(SocketAddresses.ToBytes(new IPEndPoint(IPAddress.IPv6Loopback, 80))));
        Assert.Equal(Platform.AF_INET, Platform.FamilyOf(SocketAddresses.ToBytes(new IPEndPoint(IPAddress.Loopback, 80))));
    }

    [Fact]
    public void A_connection_accepted_plainly_is_non_blocking_and_not_inherited()
    {
        const int F_GETFD = 1;
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(Server.Loopback);
        listener.Listen();
        using var client = Server.Dial(listener.LocalEndPoint!);
        var address = stackalloc byte[Platform.SizeOfSockAddrStorage];
        uint length = Platform.SizeOfSockAddrStorage;

        var accepted = SocketCalls.AcceptPortably((int)listener.Handle, address, &length);

        using var owner = new Socket(new SafeSocketHandle(accepted, ownsHandle: true));
        Assert.Equal(Platform.O_NONBLOCK, Libc.fcntl(accepted, Platform.F_GETFL, 0) & Platform.O_NONBLOCK);
        Assert.Equal(Platform.FD_CLOEXEC, Libc.fcntl(accepted, F_GETFD, 0));
        Assert.Equal(client.LocalEndPoint, SocketAddresses.ToEndPoint(new ReadOnlySpan<byte>(address, (int)length)));
    }

    [Fact]
    public void An_accept_that_fails_plainly_has_its_reason()
    {
        uint length = 0;

        Assert.True(SocketCalls.AcceptPortably(-1, null, &length) < 0);
        Assert.Equal(Errno.EBADF, Errno.Last);
    }

    [Fact]
    public void A_connection_reset_plainly_is_reset_when_it_is_closed()
    {
        var (server, client) = Pair();
        using (client)
        {
            SocketCalls.ResetPortably((int)server.Handle);
            server.Dispose();

            Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(() => client.Receive(new byte[1])).SocketErrorCode);
        }
    }

    [Fact]
    public void Datagrams_go_plainly_as_they_go_in_batches()
    {
        using var socket = Udp();
        using var peer = Udp();
        var here = SocketAddresses.ToBytes(socket.LocalEndPoint!).ToArray();
        var payload = stackalloc byte[3] { 1, 2, 3 };
        var buffers = stackalloc byte[3 * 8];
        var senders = stackalloc byte[3 * SocketAddressBytes.Size];
        var vectors = stackalloc IoVector[6];
        var slots = stackalloc MessageSlot[6];
        fixed (byte* name = here)
        {
            for (var i = 0; i < 3; i++)
            {
                vectors[i] = new IoVector { Base = payload, Length = (nuint)(i + 1) };
                vectors[3 + i] = new IoVector { Base = buffers + (8 * i), Length = 8 };
                slots[i] = new MessageSlot { Header = new MessageHeader { Name = name, NameLength = (uint)here.Length, Vectors = vectors + i, VectorCount = 1 } };
                slots[3 + i] = new MessageSlot
                {
                    Header = new MessageHeader
                    {
                        Name = senders + (i * SocketAddressBytes.Size),
                        NameLength = SocketAddressBytes.Size,
                        Vectors = vectors + 3 + i,
                        VectorCount = 1,
                    },
                };
            }

            Assert.Equal(2, SocketCalls.SendMessagesPortably((int)peer.Handle, slots, 2));
        }

        // There are fewer than would be taken, and then none.
        Assert.Equal(2, SocketCalls.ReceiveMessagesPortably((int)socket.Handle, slots + 3, 3));
        Assert.Equal((1u, 2u), (slots[3].Length, slots[4].Length));
        Assert.Equal([1, 2], new ReadOnlySpan<byte>(buffers + 8, 2).ToArray());
        Assert.Equal(
            peer.LocalEndPoint, SocketAddresses.ToEndPoint(new ReadOnlySpan<byte>(slots[4].Header.Name, (int)slots[4].Header.NameLength)));
        Assert.True(SocketCalls.ReceiveMessagesPortably((int)socket.Handle, slots + 3, 3) < 0);
        Assert.Equal(Errno.EAGAIN, Errno.Last);
    }

    [Fact]
    public void Only_a_file_that_is_a_socket_is_probed()
    {
        using var directory = new TemporaryDirectory();
        var socket = directory.File("socket");
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(socket));
        var file = directory.File("file");
        File.WriteAllText(file, "");

        Assert.Equal((true, false, false), (SocketCalls.CanProbe(socket), SocketCalls.CanProbe(file), SocketCalls.CanProbe(directory.File("none"))));
    }

    private static int Option(Socket socket, int level, int option)
    {
        int value;
        uint length = sizeof(int);
        Assert.Equal(0, Libc.getsockopt((int)socket.Handle, level, option, &value, &length));
        return value;
    }

    private static (Socket Server, Socket Client) Pair()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(Server.Loopback);
        listener.Listen();
        var client = Server.Dial(listener.LocalEndPoint!);
        return (listener.Accept(), client);
    }

    private static Socket Udp()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { Blocking = false };
        socket.Bind(Server.Loopback);
        return socket;
    }
}
