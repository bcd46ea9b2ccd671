using System.Globalization;
using System.Net.Sockets;
using Evio.Transport.Native.Polling;

namespace Evio.Transport.Native.Tests.Support;

/// <summary>What the kernel says of this process.</summary>
internal static class ProcessState
{
    /// <summary>Has the BCL's sockets open the pollers that they keep for good, so that no test takes one of those for its own.</summary>
    static ProcessState()
    {
        // So may a library that stands in for a poller.
        Poller.Create(PollerKind.Auto).Dispose();
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(Server.Loopback);
        listener.Listen();
        for (var i = 0; i < 2 * Environment.ProcessorCount; i++)
        {
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            var accepting = listener.AcceptAsync();
            client.Connect(listener.LocalEndPoint!);
            using var accepted = accepting.GetAwaiter().GetResult();
            var receiving = accepted.ReceiveAsync(new byte[1]);
            client.Shutdown(SocketShutdown.Send);
            receiving.GetAwaiter().GetResult();
        }
    }

    /// <summary>The open descriptors and what they are, the one that reads the list excepted.</summary>
    internal static Dictionary<int, string> Descriptors()
    {
        var descriptors = new Dictionary<int, string>();
        foreach (var entry in new DirectoryInfo("/proc/self/fd").EnumerateFileSystemInfos())
        {
            // The entry of the enumeration itself is gone when it is asked for.
            if (entry.LinkTarget is { } target && !target.EndsWith("/fd", StringComparison.Ordinal))
            {
                descriptors[int.Parse(entry.Name, CultureInfo.InvariantCulture)] = target;
            }
        }

        return descriptors;
    }

    /// <summary>The sockets, pollers and wake-ups among them, by what they are.</summary>
    internal static List<string> SocketsAndPollers() => [.. Descriptors().Values
        .Where(static target =>
            target.StartsWith("socket:", StringComparison.Ordinal) || target is "anon_inode:[eventpoll]" or "anon_inode:[eventfd]")
        .Order(StringComparer.Ordinal)];

    /// <summary>Those that were not there before. What earlier tests left is closed when its finalizer comes to it, and so may be gone.</summary>
    /// <param name="before">What <see cref="SocketsAndPollers"/> gave then. Sockets have names of their own, pollers are counted.</param>
    internal static List<string> OpenedSince(List<string> before)
    {
        var opened = SocketsAndPollers();
        before.ForEach(target => opened.Remove(target));
        return opened;
    }

    /// <summary>The threads whose name begins so. The kernel keeps 15 characters.</summary>
    internal static int Threads(string namePrefix) => Tasks(namePrefix).Count();

    private static IEnumerable<string> Tasks(string namePrefix) => Directory.EnumerateDirectories("/proc/self/task").Where(task =>
    {
        try
        {
            return File.ReadAllText($"{task}/comm").StartsWith(namePrefix, StringComparison.Ordinal);
        }
        catch (IOException)
        {
            // It ended meanwhile.
            return false;
        }
    });

    /// <summary>An eventfd's counter: as its loop never reads it, the number of wake-ups written.</summary>
    internal static ulong EventCounter(int descriptor)
    {
        const string Key = "eventfd-count:";
        var line = File.ReadLines($"/proc/self/fdinfo/{descriptor}").Single(static line => line.StartsWith(Key, StringComparison.Ordinal));
        return ulong.Parse(line.AsSpan(Key.Length).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
    }

    /// <summary>
    /// The processor time that some threads use while nothing is asked of them. This is the one thing that is measured by letting time pass.
    /// Not the process's time: the compiler's threads are busy when they like.
    /// </summary>
    internal static TimeSpan ProcessorTimeDuring(TimeSpan period, params string[] threadNamePrefixes)
    {
        var before = ProcessorTimes(threadNamePrefixes);
        Thread.Sleep(period);
        return TimeSpan.FromMicroseconds(
            ProcessorTimes(threadNamePrefixes).Sum(time => time.Value - before.GetValueOrDefault(time.Key)) / 1000.0);
    }

    /// <summary>By thread, in nanoseconds.</summary>
    private static Dictionary<string, long> ProcessorTimes(string[] threadNamePrefixes)
    {
        var times = new Dictionary<string, long>();
        foreach (var task in threadNamePrefixes.SelectMany(Tasks))
        {
            try
            {
                // The first field of schedstat: "time spent on the cpu (in nanoseconds)".
                times[task] = long.Parse(File.ReadAllText($"{task}/schedstat").Split(' ')[0], CultureInfo.InvariantCulture);
            }
            catch (IOException)
            {
                // It ended meanwhile.
            }
        }

        return times;
    }
}
