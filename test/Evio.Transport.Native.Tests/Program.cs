using Evio.Transport.Native.Tests.Callbacks;
using Evio.Transport.Native.Tests.Sockets;
using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;
using Xunit.Sdk;
using Xunit.v3;

// Several tests count the process's descriptors, threads or processor time.
[assembly: Parallelization(Mode = ParallelMode.None)]

namespace Evio.Transport.Native.Tests;

/// <summary>The entry point that xUnit would generate, plus the modes in which tests start this executable.</summary>
internal static class Program
{
    internal static async Task<int> Main(string[] args)
    {
        if (args is [OutOfDescriptorsEpisode.Argument])
        {
            await OutOfDescriptorsEpisode.RunAsync();
            return 0;
        }

        if (args is [TracedServer.Argument, var address])
        {
            await TracedServer.RunAsync(address);
            return 0;
        }

        if (args is [UnixModeProbe.Argument, var file])
        {
            await UnixModeProbe.RunAsync(file);
            return 0;
        }

        if (args is [BindProbe.Argument, var bound])
        {
            await BindProbe.RunAsync(bound);
            return 0;
        }

        if (args is [ManagedShortage.Argument])
        {
            await ManagedShortage.RunAsync();
            return 0;
        }

        return args.Any(static arg => arg is "--server" or "--internal-msbuild-node")
            ? await TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions)
            : await ConsoleRunner.Run(args);
    }
}
