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

        var compiler = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Select(static path => Path.Combine(path, "cc")).FirstOrDefault(File.Exists);
        if (compiler is null)
        {
            return "There is no C compiler (cc).";
        }

        var library = Path.Combine(AppContext.BaseDirectory, "libkqueue-over-epoll.so");
        string[] arguments = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-shared", "-fPIC", "-pthread"];
        using var build = Process.Start(compiler, [.. arguments, Path.Combine(AppContext.BaseDirectory, "kqueue.c"), "-o", library]);
        build.WaitForExit();
        Assert.Equal(0, build.ExitCode);
        Environment.SetEnvironmentVariable(KqueueLibrary.Variable, library);
        return null;
    }
}
