using System.Diagnostics;

namespace Evio.Bench;

/// <summary>Where things are in the checkout, and what is built for a run.</summary>
internal sealed class Workshop
{
    private Workshop(string root)
    {
        Root = root;
        Output = Path.Combine(root, "artifacts", "bench");
        Sample = Path.Combine(Output, "sample", "WebApp");
        EpollServer = Path.Combine(Output, "epoll-server");
        LoadGenerator = Path.Combine(Output, "load");
    }

    public string Root { get; }

    public string Output { get; }

    public string Sample { get; }

    public string EpollServer { get; }

    public string LoadGenerator { get; }

    /// <exception cref="BenchException">The program does not lie in a checkout.</exception>
    public static Workshop Find()
    {
        for (var directory = new DirectoryInfo(AppContext.BaseDirectory); directory is not null; directory = directory.Parent)
        {
            if (File.Exists(Path.Combine(directory.FullName, "Evio.Transport.sln")))
            {
                return new Workshop(directory.FullName);
            }
        }

        throw new BenchException($"{AppContext.BaseDirectory} is in no checkout of the project.");
    }

    public async Task PrepareAsync(bool withC, CancellationToken cancellation)
    {
        Directory.CreateDirectory(Output);
        await Child.RunToEndAsync(
            new ProcessStartInfo("dotnet", ["publish", Path.Combine(Root, "samples", "WebApp"), "-c", "Release", "-o", Path.GetDirectoryName(Sample)!]),
            cancellation);
        if (withC)
        {
            var sources = Path.Combine(Root, "eng", "bench");
            await Tool.CompileAsync(Path.Combine(sources, "epoll-server.c"), EpollServer, cancellation);
            await Tool.CompileAsync(Path.Combine(sources, "load.c"), LoadGenerator, cancellation);
        }
    }
}
