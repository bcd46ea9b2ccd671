using System.Runtime.InteropServices;

namespace Exploration;

/// <summary>
/// The descriptors that an execution's product side owns. A number that it has closed is not given out again before the execution ends, so that every use of
/// it is noticed.
/// </summary>
internal sealed partial class Descriptors
{
    private const int O_CLOEXEC = 0x80000;

    private static readonly int Placeholder = Open("/dev/null\0"u8);

    private readonly HashSet<int> _open = [];
    private readonly List<int> _closed = [];

    internal IReadOnlyCollection<int> StillOpen => _open;

    internal void Add(int descriptor) => _open.Add(descriptor);

    /// <summary>Somebody else owns it now.</summary>
    internal void Release(int descriptor) => _open.Remove(descriptor);

    internal bool IsOpen(int descriptor) => _open.Contains(descriptor);

    internal int Close(int descriptor)
    {
        _open.Remove(descriptor);
        _closed.Add(descriptor);
        return dup3(Placeholder, descriptor, O_CLOEXEC) < 0 ? -1 : 0;
    }

    internal void End()
    {
        foreach (var descriptor in _closed)
        {
            _ = close(descriptor);
        }
    }

    private static unsafe int Open(ReadOnlySpan<byte> path)
    {
        fixed (byte* start = path)
        {
            return open(start, O_CLOEXEC);
        }
    }

    [LibraryImport("libc")]
    private static unsafe partial int open(byte* path, int flags);

    [LibraryImport("libc")]
    private static partial int dup3(int from, int to, int flags);

    [LibraryImport("libc")]
    private static partial int close(int descriptor);
}
