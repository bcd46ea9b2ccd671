using System.Net.Sockets;

namespace Evio.Transport.Testing;

/// <summary>A path for a Unix-domain socket in a directory of its own, short enough for <c>sockaddr_un</c>.</summary>
internal sealed class UnixSocketPath : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("evio-");

    public UnixSocketPath() => Path = System.IO.Path.Combine(_directory.FullName, "s");

    public string Path { get; }

    public UnixDomainSocketEndPoint EndPoint => new(Path);

    public void Dispose() => _directory.Delete(recursive: true);
}
