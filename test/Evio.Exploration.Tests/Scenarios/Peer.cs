using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using Kernel = Evio.Transport.Native.Interop.Libc;
using Platform = Evio.Transport.Native.Interop.Platform;

namespace Exploration.Scenarios;

/// <summary>The other end of a connection, on a Unix-domain socket: what it does has happened when the call returns. Its calls are steps.</summary>
internal sealed unsafe partial class Peer(int descriptor) : IDisposable
{
    private bool _closed;

    internal List<byte> Received { get; } = [];

    internal string ReceivedText => Encoding.ASCII.GetString([.. Received]);

    /// <summary>Makes a pair of connected sockets.</summary>
    /// <param name="product">The product's end, which it is to close.</param>
    /// <param name="sendBuffer">The size of the product's send buffer; 0 for the default.</param>
    /// <param name="ofDatagrams">Whether each send is a datagram.</param>
    internal static Peer Create(out int product, int sendBuffer = 0, bool ofDatagrams = false)
    {
        var pair = stackalloc int[2];
        var type = ofDatagrams ? Platform.SOCK_DGRAM : Platform.SOCK_STREAM;
        Assert.Equal(0, socketpair(Platform.AF_UNIX, type | Platform.SOCK_NONBLOCK | Platform.SOCK_CLOEXEC, 0, pair));
        product = pair[0];
        Execution.Current.Descriptors.Add(product);
        if (sendBuffer > 0)
        {
            Assert.Equal(0, Kernel.setsockopt(product, Platform.SOL_SOCKET, SO_SNDBUF, &sendBuffer, sizeof(int)));
        }

        return new Peer(pair[1]);
    }

    /// <summary>Makes a pair that is connected over TCP, where a reset is no matter of unread bytes.</summary>
    internal static Peer CreateTcp(out int product)
    {
        var address = new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0).Serialize();
        var listener = New();
        var client = New();
        fixed (byte* bytes = address.Buffer.Span)
        {
            var length = (uint)address.Size;
            Assert.Equal(0, Kernel.bind(listener, bytes, length));
            Assert.Equal(0, Kernel.listen(listener, 1));
            Assert.Equal(0, Kernel.getsockname(listener, bytes, &length));

            // It does not wait, but over loopback it has connected when it returns.
            _ = Kernel.connect(client, bytes, length);
        }

        Arrive(listener);
        product = Kernel.accept4(listener, null, null, Platform.SOCK_NONBLOCK | Platform.SOCK_CLOEXEC);
        Assert.True(product >= 0);
        _ = Kernel.close(listener);
        Execution.Current.Descriptors.Add(product);
        return new Peer(client);

        static int New() => Kernel.socket(Platform.AF_INET, Platform.SOCK_STREAM | Platform.SOCK_NONBLOCK | Platform.SOCK_CLOEXEC, 0);
    }

    /// <summary>Connects to a listener, unless nobody listens there (any more).</summary>
    internal static Peer? TryConnect(UnixDomainSocketEndPoint endPoint)
    {
        Execution.Step("connects");
        var address = endPoint.Serialize();
        var descriptor = Kernel.socket(Platform.AF_UNIX, Platform.SOCK_STREAM | Platform.SOCK_NONBLOCK | Platform.SOCK_CLOEXEC, 0);
        var peer = new Peer(descriptor);
        fixed (byte* bytes = address.Buffer.Span)
        {
            if (Kernel.connect(descriptor, bytes, (uint)address.Size) == 0)
            {
                return peer;
            }
        }

        peer.Dispose();
        return null;
    }

    internal void Send(string text)
    {
        Execution.Step($"sends {text}");
        var bytes = Encoding.ASCII.GetBytes(text);
        fixed (byte* start = bytes)
        {
            // The product may have closed its end.
            _ = Kernel.send(descriptor, start, (nuint)bytes.Length, Platform.MSG_NOSIGNAL);
        }
    }

    internal void Shutdown()
    {
        Execution.Step("sends its end");
        _ = Kernel.shutdown(descriptor, Platform.SHUT_WR);
    }

    /// <summary>Resets a TCP connection, and waits until the product's end has got it.</summary>
    internal void Reset(int product)
    {
        Execution.Step("resets");
        var linger = stackalloc int[2] { 1, 0 };
        Assert.Equal(0, Kernel.setsockopt(descriptor, Platform.SOL_SOCKET, Platform.SO_LINGER, linger, 2 * sizeof(int)));
        Dispose();
        Arrive(product);
    }

    /// <summary>Waits until the end of a TCP peer's output, or its reset, has arrived.</summary>
    internal static void Arrive(int product) =>
        Assert.True(System.Threading.SpinWait.SpinUntil(() => Evio.Transport.Native.Libc.IsReadable(product), TimeSpan.FromSeconds(10)));

    /// <summary>Closes it. If it has not received all, that is a reset.</summary>
    internal void Close()
    {
        Execution.Step("closes its end");
        Dispose();
    }

    /// <summary>Receives until there are so many bytes, or the end.</summary>
    internal void Receive(int count = int.MaxValue)
    {
        var buffer = stackalloc byte[4096];
        while (Received.Count < count)
        {
            Execution.WaitFor("output", () => Evio.Transport.Native.Libc.IsReadable(descriptor));
            var received = Kernel.recv(descriptor, buffer, (nuint)Math.Min(4096, count - Received.Count), 0);
            if (received <= 0)
            {
                return;
            }

            Received.AddRange(new ReadOnlySpan<byte>(buffer, (int)received));
        }
    }

    public void Dispose()
    {
        if (!_closed)
        {
            _closed = true;
            _ = Kernel.close(descriptor);
        }
    }

    private const int SO_SNDBUF = 7;

    [LibraryImport("libc")]
    private static partial int socketpair(int domain, int type, int protocol, int* pair);
}
