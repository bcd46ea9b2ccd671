using System.Net.Sockets;

namespace Evio.Transport.Native;

/// <summary>How a listener is made, and what its connections inherit.</summary>
public sealed class StreamListenerOptions
{
    /// <summary>The largest permitted <see cref="Backlog"/>.</summary>
    public const int MaxBacklog = 65535;

    /// <summary>All permissions that <see cref="UnixSocketMode"/> can give: 0777.</summary>
    internal const UnixFileMode MaxUnixSocketMode = (UnixFileMode)0b111_111_111;

    /// <summary>The longest queue of established connections that wait to be accepted, per listening descriptor.</summary>
    /// <remarks>From 1 to <see cref="MaxBacklog"/>; defaults to 512. The kernel caps it at <c>net.core.somaxconn</c> (listen(2)).</remarks>
    public int Backlog { get; set; } = 512;

    /// <summary>Whether TCP sends small segments at once (<c>TCP_NODELAY</c>, tcp(7)). Defaults to <see langword="true"/>.</summary>
    public bool NoDelay { get; set; } = true;

    /// <summary>
    /// Whether <see cref="System.Net.IPAddress.IPv6Any"/> takes IPv4 connections as well (ipv6(7)). Defaults to <see langword="true"/>.
    /// </summary>
    public bool DualMode { get; set; } = true;

    /// <summary>Whether other processes of the same user may bind the same TCP port (<c>SO_REUSEPORT</c>, socket(7)).</summary>
    /// <remarks>
    /// Defaults to <see langword="false"/>. The loops of a group share a port among themselves in any case. Without this option, the
    /// listener first verifies that the port is free.
    /// </remarks>
    public bool SharePort { get; set; }

    /// <summary>The mode of the file of a Unix-domain socket. A client needs the write permission to connect (unix(7)).</summary>
    /// <remarks>
    /// Up to 0777. Defaults to <see langword="null"/>: 0777 less the process's umask. The file has this mode, whatever the umask is, before
    /// a client can connect. On Linux it has no wider mode at any moment. Has no effect for TCP, for abstract addresses and for inherited
    /// descriptors.
    /// </remarks>
    public UnixFileMode? UnixSocketMode { get; set; }

    /// <summary>Called on a loop when accepting fails, for lack of descriptors or memory for example. Called once per episode.</summary>
    /// <remarks>
    /// The connections wait in the backlog meanwhile, and the loop tries again every 100 ms. The last argument is the reason, for example
    /// <c>EMFILE</c>, <c>ENFILE</c>, <c>ENOBUFS</c> or <c>ENOMEM</c> (accept(2)).
    /// </remarks>
    public Action<StreamListener, SocketException>? OnAcceptFailing { get; set; }

    /// <summary>Called on a loop when accepting works again after <see cref="OnAcceptFailing"/>.</summary>
    public Action<StreamListener>? OnAcceptRecovered { get; set; }

    /// <summary>Whether the listener waits for <see cref="StreamListener.Resume"/> before it accepts.</summary>
    internal bool StartPaused { get; set; }

    internal void Validate()
    {
        if (Backlog is < 1 or > MaxBacklog)
        {
            throw new ArgumentException($"{nameof(Backlog)} is {Backlog}; it must be from 1 to {MaxBacklog}.");
        }

        if (UnixSocketMode is < 0 or > MaxUnixSocketMode)
        {
            throw new ArgumentException(
                $"{nameof(UnixSocketMode)} is {Convert.ToString((int)UnixSocketMode.GetValueOrDefault(), 8)}; it must be from 0 to 777 (octal), or null.");
        }
    }
}
