namespace Evio.Transport.Native.Sockets;

/// <summary>The file that a listener on a Unix-domain address has made.</summary>
/// <param name="Path">Where it was made.</param>
/// <param name="Identity">What it is known by; <see langword="null"/> when that could not be learned.</param>
internal sealed record SocketFile(string Path, (ulong Device, ulong Inode)? Identity);
