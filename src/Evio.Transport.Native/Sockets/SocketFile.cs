namespace Evio.Transport.Native.Sockets;

/// <summary>The file that a listener on a Unix-domain address has created.</summary>
/// <param name="Path">The file's path.</param>
/// <param name="Identity">The values that identify the file; <see langword="null"/> when they could not be read.</param>
internal sealed record SocketFile(string Path, (ulong Device, ulong Inode)? Identity);
