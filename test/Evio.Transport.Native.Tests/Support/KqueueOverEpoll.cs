using System.Diagnostics;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Tests.Support;

/// <summary>The library that has kqueue on Linux: the one that the environment names, or test/KqueueOverEpoll, built here.</summary>
internal static class KqueueOverEpoll
{
    private static readonly Lazy<string?> Failure = new(Prepare);

    /// <summary>Skips the test where there is no kqueue and no compiler to build one.</summary>
    internal static void Require() => Assert.SkipWhen(Failure.Value is not null, Failure.Value ?? "");

    private static string? Prepare()
    {
        if (!OperatingSystem.IsLinux() || Environment.GetEnvironmentVariable(KqueueLibrary.Variable) is { Length: > 0 })
        {
            return null;
        }

        if (!(Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(static path => File.Exists(Path.Combine(path, "cc"))))
        {
            return "There is no C compiler (cc).";
        }

        var library = Path.Combine(AppContext.BaseDirectory, "libkqueue-over-epoll.so");
        using var build = Process.Start("sh", [Path.Combine(AppContext.BaseDirectory, "KqueueOverEpoll", "build.sh"), library]);
        build.WaitForExit();
        Assert.Equal(0, build.ExitCode);
        Environment.SetEnvironmentVariable(KqueueLibrary.Variable, library);
        return null;
    }
}
