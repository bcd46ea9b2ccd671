using System.Net.Sockets;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>Creates, replaces and removes the files of listeners on Unix-domain addresses.</summary>
internal static class SocketFiles
{
    /// <summary>The offset of <c>sun_path</c> in <c>sockaddr_un</c>, on every system.</summary>
    private const int PathOffset = 2;

    /// <summary>The number of attempts to take the lock. Together they last one second at least.</summary>
    private const int MaxLockAttempts = 1000;

    private static readonly TimeSpan LockRetry = TimeSpan.FromMilliseconds(1);

    /// <summary>The file of an address; null for abstract addresses (unix(7)), which have none.</summary>
    internal static string? PathOf(UnixDomainSocketEndPoint endPoint)
    {
        // The bytes decide, not the text: the BCL prints abstract addresses with a leading '@', and a file's name may begin with '@', too.
        var address = endPoint.Serialize();
        return address.Size <= PathOffset || address[PathOffset] == 0 ? null : Path.GetFullPath(endPoint.ToString());
    }

    /// <summary>
    /// Creates a file by bind(2), and replaces one that a server left behind. The directory is locked meanwhile, so that other servers that
    /// do the same wait. Without the lock, a file that is stale when it is checked could be a running server's when it is removed.
    /// </summary>
    /// <param name="file">The file's path.</param>
    /// <param name="bind">Calls bind(2), which creates the file.</param>
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

    /// <summary>Takes the lock of a file's directory. Unlike a lock file beside the file, it leaves nothing behind.</summary>
    /// <returns>
    /// The descriptor that has the lock. Negative when the directory may not be read, the file system has no locks, or the lock stays
    /// taken.
    /// </returns>
    private static int Lock(string file)
    {
        var descriptor = SocketCalls.OpenDirectory(Path.GetDirectoryName(file) ?? "/");
        if (descriptor < 0)
        {
            return descriptor;
        }

        // A server that starts holds the lock only for a short time. Any other holder must not keep servers from starting, so the attempts
        // are limited.
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

    /// <summary>
    /// Removes the file of a server that ended without removing it. Other kinds of files, and the file of a running server, stay.
    /// </summary>
    private static void RemoveStale(string file)
    {
        if (!SocketCalls.CanProbe(file))
        {
            // There is no file, or one that bind(2) refuses to replace.
            return;
        }

        // A datagram socket cannot connect to a stream socket. If a stream socket is bound there, the answer is EPROTOTYPE, and its owner
        // does not notice. If none is bound, the answer is ECONNREFUSED (unix(7)).
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
            // A server listens there, or may listen there.
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

    /// <summary>
    /// Whether a file cannot be created because its file system is read-only. The BCL's <see cref="Socket.Bind"/> does not report that
    /// reason.
    /// </summary>
    internal static bool IsOnReadOnlyFileSystem(string file)
    {
        try
        {
            // As a rule this fails where bind(2) failed. If it succeeds, it leaves nothing behind.
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
    /// Removes the file of a listener that ends, unless another file is in its place. A file that was removed before is no failure. The
    /// listener must still listen. Until then no server takes its file for a stale one, and no other file gets the number of its inode.
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
            // The file stays, and the next server that binds there replaces it.
        }
    }

    /// <summary>
    /// Keeps bind(2) from creating a file with a wider mode: the file gets the socket's own mode less the process's umask.
    /// </summary>
    internal static void LimitMode(int descriptor, UnixFileMode mode)
    {
        if (!SocketCalls.LimitMode(descriptor, mode))
        {
            throw ModeException(Errno.Last, "socket", mode);
        }
    }

    /// <summary>Sets the mode of a file that was just bound, because the umask may have taken a part of it away.</summary>
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
