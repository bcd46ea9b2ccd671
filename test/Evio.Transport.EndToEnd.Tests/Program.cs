using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>The entry point that xUnit would generate, plus those of <see cref="ChildServer"/>, <see cref="HostileServer"/> and <see cref="OrdinaryServer"/>.</summary>
internal static class Program
{
    internal static async Task<int> Main(string[] args)
    {
        if (await ChildServer.TryRunAsync(args) || await HostileServer.TryRunAsync(args) || await OrdinaryServer.TryRunAsync(args))
        {
            return 0;
        }

        return args.Any(static arg => arg is "--server" or "--internal-msbuild-node")
            ? await TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions)
            : await ConsoleRunner.Run(args);
    }
}
