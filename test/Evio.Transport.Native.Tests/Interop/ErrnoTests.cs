using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Tests.Interop;

public sealed unsafe class ErrnoTests
{
    [Theory]
    [InlineData(0, SocketError.Success)]
    [InlineData(1, SocketError.AccessDenied)]
    [InlineData(2, SocketError.AddressNotAvailable)]
    [InlineData(4, SocketError.Interrupted)]
    [InlineData(9, SocketError.OperationAborted)]
    [InlineData(11, SocketError.WouldBlock)]
    [InlineData(12, SocketError.NoBufferSpaceAvailable)]
    [InlineData(13, SocketError.AccessDenied)]
    [InlineData(14, SocketError.Fault)]
    [InlineData(22, SocketError.InvalidArgument)]
    [InlineData(23, SocketError.TooManyOpenSockets)]
    [InlineData(24, SocketError.TooManyOpenSockets)]
    [InlineData(32, SocketError.Shutdown)]
    [InlineData(88, SocketError.NotSocket)]
    [InlineData(90, SocketError.MessageSize)]
    [InlineData(93, SocketError.ProtocolNotSupported)]
    [InlineData(95, SocketError.OperationNotSupported)]
    [InlineData(97, SocketError.AddressFamilyNotSupported)]
    [InlineData(98, SocketError.AddressAlreadyInUse)]
    [InlineData(99, SocketError.AddressNotAvailable)]
    [InlineData(100, SocketError.NetworkDown)]
    [InlineData(101, SocketError.NetworkUnreachable)]
    [InlineData(103, SocketError.ConnectionAborted)]
    [InlineData(104, SocketError.ConnectionReset)]
    [InlineData(105, SocketError.NoBufferSpaceAvailable)]
    [InlineData(107, SocketError.NotConnected)]
    [InlineData(108, SocketError.Shutdown)]
    [InlineData(110, SocketError.TimedOut)]
    [InlineData(111, SocketError.ConnectionRefused)]
    [InlineData(113, SocketError.HostUnreachable)]
    [InlineData(4095, SocketError.SocketError)]
    public void An_error_number_of_Linux_becomes_the_socket_error_of_the_BCL(int errno, SocketError expected)
    {
        Assert.Equal(expected, Errno.ToSocketError(errno));
        Assert.Equal(expected, Errno.ToException(errno, "message").SocketErrorCode);
        Assert.Equal(expected, IoResult.FromError(errno).Error);
    }

    [Theory]
    [InlineData(0, SocketError.Success)]
    [InlineData(1, SocketError.AccessDenied)]
    [InlineData(2, SocketError.AddressNotAvailable)]
    [InlineData(4, SocketError.Interrupted)]
    [InlineData(9, SocketError.OperationAborted)]
    [InlineData(11, SocketError.SocketError)]
    [InlineData(12, SocketError.NoBufferSpaceAvailable)]
    [InlineData(13, SocketError.AccessDenied)]
    [InlineData(14, SocketError.Fault)]
    [InlineData(22, SocketError.InvalidArgument)]
    [InlineData(23, SocketError.TooManyOpenSockets)]
    [InlineData(24, SocketError.TooManyOpenSockets)]
    [InlineData(32, SocketError.Shutdown)]
    [InlineData(35, SocketError.WouldBlock)]
    [InlineData(38, SocketError.NotSocket)]
    [InlineData(40, SocketError.MessageSize)]
    [InlineData(43, SocketError.ProtocolNotSupported)]
    [InlineData(45, SocketError.OperationNotSupported)]
    [InlineData(47, SocketError.AddressFamilyNotSupported)]
    [InlineData(48, SocketError.AddressAlreadyInUse)]
    [InlineData(49, SocketError.AddressNotAvailable)]
    [InlineData(50, SocketError.NetworkDown)]
    [InlineData(51, SocketError.NetworkUnreachable)]
    [InlineData(53, SocketError.ConnectionAborted)]
    [InlineData(54, SocketError.ConnectionReset)]
    [InlineData(55, SocketError.NoBufferSpaceAvailable)]
    [InlineData(57, SocketError.NotConnected)]
    [InlineData(58, SocketError.Shutdown)]
    [InlineData(60, SocketError.TimedOut)]
    [InlineData(61, SocketError.ConnectionRefused)]
    [InlineData(65, SocketError.HostUnreachable)]
    [InlineData(88, SocketError.SocketError)]
    [InlineData(104, SocketError.SocketError)]
    public void An_error_number_of_Darwin_and_FreeBSD_becomes_it_too(int errno, SocketError expected)
    {
        Assert.Equal(expected, Errno.ToSocketError(Errno.FromBsd(errno, freeBsd: false)));
        Assert.Equal(expected, Errno.ToSocketError(Errno.FromBsd(errno, freeBsd: true)));
    }

    [Fact]
    public void Darwin_and_FreeBSD_differ_in_some()
    {
        Assert.Equal(Errno.EINPROGRESS, Errno.FromBsd(36, freeBsd: false));
        Assert.Equal((Errno.EPROTO, Errno.EPROTO), (Errno.FromBsd(100, freeBsd: false), Errno.FromBsd(92, freeBsd: true)));
        Assert.Equal((-92, -100), (Errno.FromBsd(92, freeBsd: false), Errno.FromBsd(100, freeBsd: true)));
        Assert.Equal((Errno.EOPNOTSUPP, -102), (Errno.FromBsd(102, freeBsd: false), Errno.FromBsd(102, freeBsd: true)));
    }

    [Fact]
    public void The_last_error_is_that_of_the_call_before()
    {
        Assert.Equal(-1, Libc.close(-1));
        Assert.Equal(Errno.EBADF, Errno.Last);
    }

    [Fact]
    public void The_message_of_an_exception_is_the_one_given() =>
        Assert.Equal("The port is taken.", Errno.ToException(Errno.EADDRINUSE, "The port is taken.").Message);

    [Fact]
    public void A_result_is_a_count_or_an_error()
    {
        var nothing = IoResult.FromCount(0);
        var some = IoResult.FromCount(7);
        var later = IoResult.FromError(Errno.EAGAIN);
        var closed = IoResult.Closed;

        Assert.Equal((true, 0, false, SocketError.Success), (nothing.IsSuccess, nothing.Count, nothing.WouldBlock, nothing.Error));
        Assert.Equal((true, 7, false, SocketError.Success), (some.IsSuccess, some.Count, some.WouldBlock, some.Error));
        Assert.Equal((false, 0, true, SocketError.WouldBlock), (later.IsSuccess, later.Count, later.WouldBlock, later.Error));
        Assert.Equal((false, 0, false, SocketError.OperationAborted), (closed.IsSuccess, closed.Count, closed.WouldBlock, closed.Error));
    }
}
