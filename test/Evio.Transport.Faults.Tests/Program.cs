using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;
using Xunit.Sdk;
using Xunit.v3;

// One server at a time: descriptors and threads are counted.
[assembly: Parallelization(Mode = ParallelMode.None)]

namespace Evio.Transport.Faults.Tests;

/// <summary>The entry point that xUnit would generate, plus the one of <see cref="FaultServer"/>.</summary>
internal static class Program
{
    internal static async Task<int> Main(string[] args)
    {
        if (args is [FaultServer.Argument])
        {
            await FaultServer.RunAsync();
            return 0;
        }

        return args.Any(static arg => arg is "--server" or "--internal-msbuild-node")
            ? await TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions)
            : await ConsoleRunner.Run(args);
    }
}
