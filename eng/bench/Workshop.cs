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
        Ecosystem = Path.Combine(Output, "ecosystem", "Evio.Bench.Ecosystem");
        EpollServer = Path.Combine(Output, "epoll-server");
        LoadGenerator = Path.Combine(Output, "load");
    }

    public string Root { get; }

    public string Output { get; }

    public string Sample { get; }

    public string Ecosystem { get; }

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

    /// <summary>What is started for a variant of a scenario.</summary>
    public string ProgramOf(Scenario scenario, Variant variant) =>
        !variant.IsApplication ? EpollServer : scenario.Application == Application.Sample ? Sample : Ecosystem;

    public async Task PrepareAsync(IEnumerable<Application> applications, bool withC, CancellationToken cancellation)
    {
        Directory.CreateDirectory(Output);
        foreach (var application in applications)
        {
            var (project, program) = application == Application.Sample ? ("samples/WebApp", Sample) : ("eng/bench/ecosystem", Ecosystem);
            var folder = Path.GetDirectoryName(program)!;
            await Child.RunToEndAsync(
                new ProcessStartInfo("dotnet", ["publish", Path.Combine(Root, project), "-c", "Release", "-o", folder]), cancellation);
        }

        if (withC)
        {
            var sources = Path.Combine(Root, "eng", "bench");
            await Tool.CompileAsync(Path.Combine(sources, "epoll-server.c"), EpollServer, cancellation);
            await Tool.CompileAsync(Path.Combine(sources, "load.c"), LoadGenerator, cancellation);
        }
    }
}
