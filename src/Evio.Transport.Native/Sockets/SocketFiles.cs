using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>The files that listening on Unix-domain addresses makes.</summary>
internal static class SocketFiles
{
    /// <summary>Of sun_path in sockaddr_un, on every system.</summary>
    private const int PathOffset = 2;

    /// <summary>How often the lock is tried for, for a second at least.</summary>
    private const int MaxLockAttempts = 1000;

    private static readonly TimeSpan LockRetry = TimeSpan.FromMilliseconds(1);

    /// <summary>The file of an address; null for abstract addresses (unix(7)), which have none.</summary>
    internal static string? PathOf(UnixDomainSocketEndPoint endPoint)
    {
        // Not their text: the BCL prints them with a leading '@', with which a file's name may begin too.
        var address = endPoint.Serialize();
        return address.Size <= PathOffset || address[PathOffset] == 0 ? null : Path.GetFullPath(endPoint.ToString());
    }

    /// <summary>
    /// Has a file made, in the place of one that a server left behind. Who else does so in the same directory waits meanwhile: a file that is stale when it is looked at
    /// must not be a living server's when it is removed.
    /// </summary>
    /// <param name="file">The file.</param>
    /// <param name="bind">Makes it (bind(2)).</param>
    /// <exception cref="SocketException">The file may not be replaced.</exception>
    internal static SocketFile Make(string file, Action bind)
    {
        var descriptor = Lock(file);
        try
        {
            RemoveStale(file);
            bind();
            return new SocketFile(file, SocketCalls.IdentityOf(file));
        }
        finally
        {
            if (descriptor >= 0)
            {
                _ = Libc.close(descriptor);
            }
        }
    }

    /// <summary>Takes the lock of a file's directory. It leaves nothing behind, other than the lock of a file beside it.</summary>
    /// <returns>The descriptor that has the lock, or below zero: the directory may not be read, or the file system knows no locks.</returns>
    private static int Lock(string file)
    {
        var descriptor = SocketCalls.OpenDirectory(Path.GetDirectoryName(file) ?? "/");
        if (descriptor < 0)
        {
            return descriptor;
        }

        // For long it is not held by a server that starts, but by somebody who may not keep others from starting.
        for (var attempt = 0; attempt < MaxLockAttempts; attempt++)
        {
            switch (SocketCalls.TryLock(descriptor))
            {
                case 0:
                    return descriptor;
                case Errno.EAGAIN or Errno.EINTR:
                    Thread.Sleep(LockRetry);
                    continue;
            }

            break;
        }

        _ = Libc.close(descriptor);
        return -1;
    }

    /// <summary>Removes the file of a server that ended without removing it. Files of any other kind, and of a server that lives, are left.</summary>
    private static void RemoveStale(string file)
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
            Delete(file);
        }
        catch (SocketException)
        {
            // Somebody is there, or may be.
        }
    }

    private static void Delete(string file)
    {
        try
        {
            File.Delete(file);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            var reason = IsReadOnly(exception) ? "its file system is read-only" : exception.Message;
            throw new SocketException(
                (int)SocketError.AccessDenied, $"Address {file} could not be bound: the file that a server has left there could not be removed: {reason}.");
        }
    }

    /// <summary>Whether a file cannot be made because its file system is read-only, which the BCL's <see cref="Socket.Bind"/> does not tell.</summary>
    internal static bool IsOnReadOnlyFileSystem(string file)
    {
        try
        {
            // It does not succeed where bind(2) did not, as a rule; then it leaves nothing.
            using var made = new FileStream(file, FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 0, FileOptions.DeleteOnClose);
            return false;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return IsReadOnly(exception);
        }
    }

    private static bool IsReadOnly(Exception exception) => exception is IOException { HResult: Errno.EROFS };

    /// <summary>
    /// Removes the file of a listener that ends, unless another one is in its place. To be called while the listener still listens: its file is not taken for a
    /// stale one then, and its inode's number is not given to another file. That somebody else removed it before is no failure.
    /// </summary>
    internal static void Remove(SocketFile? file)
    {
        if (file?.Identity is null || SocketCalls.IdentityOf(file.Path) != file.Identity)
        {
            return;
        }

        try
        {
            File.Delete(file.Path);
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
