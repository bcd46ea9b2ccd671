using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Tests.Support;

/// <summary>Entry points that only the tests need.</summary>
internal static unsafe partial class TestLibc
{
    internal const int RLIMIT_NOFILE = 7;
    internal const int PR_SET_PTRACER = 0x59616d61;
    internal const int AF_UNIX = 1;
    internal const int SOCK_STREAM = 1;
    internal const int SOCK_NONBLOCK = 0x800;
    internal const int SOCK_CLOEXEC = 0x80000;

    private const string Library = "libc";

    [LibraryImport(Library)]
    internal static partial int dup(int descriptor);

    [LibraryImport(Library)]
    internal static partial int dup2(int descriptor, int target);

    [LibraryImport(Library)]
    internal static partial int close(int descriptor);

    [LibraryImport(Library)]
    internal static partial int fcntl(int descriptor, int command, nint argument);

    [LibraryImport(Library)]
    internal static partial int socketpair(int domain, int type, int protocol, int* descriptors);

    [LibraryImport(Library)]
    internal static partial nint read(int descriptor, void* buffer, nuint count);

    [LibraryImport(Library)]
    internal static partial int gettid();

    [LibraryImport(Library)]
    internal static partial int tgkill(int process, int thread, int signal);

    [LibraryImport(Library)]
    internal static partial int prctl(int option, nint argument2, nint argument3, nint argument4, nint argument5);

    [LibraryImport(Library)]
    internal static partial int setrlimit(int resource, ResourceLimit* limit);

    [LibraryImport(Library)]
    internal static partial int getrlimit(int resource, ResourceLimit* limit);

    internal struct ResourceLimit
    {
        internal ulong Soft;
        internal ulong Hard;
    }
}
