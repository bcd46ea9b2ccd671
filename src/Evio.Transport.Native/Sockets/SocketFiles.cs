using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>The files that listening on Unix-domain addresses makes.</summary>
internal static class SocketFiles
{
    /// <summary>Of sun_path in sockaddr_un, on every system.</summary>
    private const int PathOffset = 2;

    /// <summary>The file of an address; null for abstract addresses (unix(7)), which have none.</summary>
    internal static string? PathOf(UnixDomainSocketEndPoint endPoint)
    {
        // Not their text: the BCL prints them with a leading '@', with which a file's name may begin too.
        var address = endPoint.Serialize();
        return address.Size <= PathOffset || address[PathOffset] == 0 ? null : Path.GetFullPath(endPoint.ToString());
    }

    /// <summary>Removes the file of a server that ended without removing it. Files of any other kind, and of a server that lives, are left.</summary>
    internal static void RemoveStale(string file)
    {
        if (!SocketCalls.CanProbe(file))
        {
            // Nothing there, or something that bind(2) will refuse to replace.
            return;
        }

        // A datagram socket cannot connect to a stream socket: where one is bound, the answer is EPROTOTYPE, and its owner notices nothing. Where
        // none is, it is ECONNREFUSED (unix(7)).
        using var probe = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(file));
        }
        catch (SocketException exception) when (exception.SocketErrorCode == SocketError.ConnectionRefused)
        {
            File.Delete(file);
        }
        catch (SocketException)
        {
            // Somebody is there, or may be.
        }
    }

    /// <summary>Removes the file of a listener that ends. That somebody else did so, or its directory, before is no failure.</summary>
    internal static void Remove(string? file)
    {
        try
        {
            if (file is not null)
            {
                File.Delete(file);
            }
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // It stays, and whoever binds there next replaces it.
        }
    }

    /// <summary>Keeps bind(2) from making a file with a wider mode: what it makes has the socket's own mode less the process's umask.</summary>
    internal static void LimitMode(int descriptor, UnixFileMode mode)
    {
        if (!SocketCalls.LimitMode(descriptor, mode))
        {
            throw ModeException(Errno.Last, "socket", mode);
        }
    }

    /// <summary>Gives a file that was just bound the part of its mode that the umask has taken away.</summary>
    internal static void SetMode(string file, UnixFileMode mode)
    {
        if ((SocketCalls.ModeOf(file) & Platform.PermissionBits) != (int)mode && !SocketCalls.SetMode(file, mode))
        {
            throw ModeException(Errno.Last, file, mode);
        }
    }

    private static SocketException ModeException(int errno, string file, UnixFileMode mode) =>
        Errno.ToException(errno, $"The mode of {file} could not be set to {Convert.ToString((int)mode, 8)} (errno {errno}).");
}
