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

    /// <summary>Whether <see cref="System.Net.IPAddress.IPv6Any"/> takes IPv4 connections as well (ipv6(7)). Defaults to <see langword="true"/>.</summary>
    public bool DualMode { get; set; } = true;

    /// <summary>Whether other processes of the same user may bind the same TCP port (<c>SO_REUSEPORT</c>, socket(7)).</summary>
    /// <remarks>
    /// Defaults to <see langword="false"/>. The loops of a group share a port among themselves in any case; without this option the port
    /// is proved to be free first.
    /// </remarks>
    public bool SharePort { get; set; }

    /// <summary>Who may connect to a Unix-domain socket: the mode of its file, of which connecting takes the write permission (unix(7)).</summary>
    /// <remarks>
    /// Up to 0777. Defaults to <see langword="null"/>: 0777 less the process's umask. The file has this mode, whatever the umask, before anybody can
    /// connect, and at no moment a wider one. Without meaning for TCP, for abstract addresses and for inherited descriptors.
    /// </remarks>
    public UnixFileMode? UnixSocketMode { get; set; }

    /// <summary>Called on a loop when accepting fails for want of descriptors or memory, once per episode.</summary>
    /// <remarks>
    /// The connections wait in the backlog meanwhile, and the loop tries again every 100 ms. The last argument is the reason
    /// (<c>EMFILE</c>, <c>ENFILE</c>, <c>ENOBUFS</c>, <c>ENOMEM</c>; accept(2)).
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
