using System.Net.Sockets;

namespace Evio.Transport.Native.Managed;

/// <summary>
/// <c>SO_REUSEPORT</c> for sockets of the BCL, whose <see cref="SocketOptionName.ReuseAddress"/> sets more than that and means something else on Windows.
/// </summary>
internal static class PortSharing
{
    /// <summary>Lets other sockets that ask for it bind the same port. To be called before the bind.</summary>
    /// <exception cref="PlatformNotSupportedException">The system has no such option.</exception>
    internal static void Enable(Socket socket)
    {
        // SOL_SOCKET and SO_REUSEPORT of the system's sys/socket.h.
        var (level, option) =
            OperatingSystem.IsLinux() || OperatingSystem.IsAndroid() ? (1, 15)
            : OperatingSystem.IsMacOS() || OperatingSystem.IsIOS() || OperatingSystem.IsFreeBSD() ? (0xffff, 0x200)
            : throw new PlatformNotSupportedException("reuseport=true cannot be had: this system has no SO_REUSEPORT.");
        socket.SetRawSocketOption(level, option, [1, 0, 0, 0]);
    }
}
