using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>
/// Darwin's <c>struct kevent</c>, the same on both of its architectures (kqueue(2)). FreeBSD's (12 and later) begins with the same fields,
/// and four reserved words follow. So <see cref="Size"/> is the step through arrays of them.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KernelEvent
{
    /// <summary>The larger of both layouts, for buffers on the stack.</summary>
    internal const int MaxSize = 64;

    internal nuint Identifier;
    internal short Filter;
    internal ushort Flags;
    internal uint FilterFlags;
    internal nint Data;
    internal ulong UserData;

    internal static readonly int Size = SizeOn(Platform.IsFreeBsd);

    internal static int SizeOn(bool freeBsd) => freeBsd ? MaxSize : 32;
}

/// <summary><c>struct timespec</c> of 64-bit systems.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct TimeSpec
{
    internal nint Seconds;
    internal nint Nanoseconds;

    internal static TimeSpec FromMilliseconds(int milliseconds) =>
        new() { Seconds = milliseconds / 1000, Nanoseconds = milliseconds % 1000 * 1_000_000 };
}
