using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>
/// kqueue(2) and kevent(2). They come from the system's C library on Darwin and FreeBSD, and on Linux from the library that the environment
/// variable <see cref="Variable"/> names. Its <c>struct kevent</c> has Darwin's layout and constants. Everything else about Linux stays
/// Linux's.
/// </summary>
internal static unsafe partial class KqueueLibrary
{
    internal const string Variable = "EVIO_KQUEUE_LIBRARY";

    /// <summary>The name for which the resolver that <see cref="Load"/> sets gives the library. No file has it.</summary>
    private const string Library = "kqueue";

    private static readonly Lazy<nint> Handle = new(Load);

    [LibraryImport(Library)]
    internal static partial int kqueue();

    [LibraryImport(Library)]
    internal static partial int kevent(int kqueue, byte* changes, int changeCount, byte* events, int eventCount, TimeSpec* timeout);

    /// <summary>Loads the library. To be called before the calls above.</summary>
    /// <exception cref="PlatformNotSupportedException">No library provides them here.</exception>
    internal static void EnsureLoaded() => _ = Handle.Value;

    private static nint Load()
    {
        var handle = Open();
        NativeLibrary.SetDllImportResolver(typeof(KqueueLibrary).Assembly, (name, _, _) => name == Library ? handle : 0);
        return handle;
    }

    private static nint Open()
    {
        if (!Platform.IsLinux)
        {
            return NativeLibrary.Load("libc", typeof(KqueueLibrary).Assembly, null);
        }

        var file = Environment.GetEnvironmentVariable(Variable);
        if (string.IsNullOrEmpty(file))
        {
            throw new PlatformNotSupportedException($"Linux has no kqueue of its own: the environment variable {Variable} names no library that has one.");
        }

        try
        {
            var handle = NativeLibrary.Load(file);
            _ = NativeLibrary.GetExport(handle, nameof(kqueue));
            _ = NativeLibrary.GetExport(handle, nameof(kevent));
            return handle;
        }
        catch (Exception exception) when (exception is DllNotFoundException or BadImageFormatException or EntryPointNotFoundException)
        {
            throw new PlatformNotSupportedException($"{Variable} is {file}, which is no library with kqueue and kevent: {exception.Message}", exception);
        }
    }
}
