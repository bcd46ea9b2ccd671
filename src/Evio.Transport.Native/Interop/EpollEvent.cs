using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Evio.Transport.Native.Interop;

/// <summary>
/// <c>struct epoll_event { uint32_t events; uint64_t data; }</c>. glibc and musl pack it to 12 bytes on x86-64 and align it to 16
/// everywhere else (epoll_event(3type), <c>__EPOLL_PACKED</c>). The process's architecture decides once; the JIT then sees constants.
/// </summary>
internal static unsafe class EpollEvent
{
    /// <summary>The larger of both layouts, for buffers on the stack.</summary>
    internal const int MaxSize = 16;

    private static readonly bool Packed = RuntimeInformation.ProcessArchitecture == Architecture.X64;

    internal static int Size => SizeOn(Packed);

    internal static int OffsetOfData => OffsetOfDataOn(Packed);

    internal static int SizeOn(bool packed) => packed ? 12 : 16;

    internal static int OffsetOfDataOn(bool packed) => packed ? 4 : 8;

    // SAFETY: callers pass a pointer to at least Size bytes. The data may be unaligned on x86-64, hence the unaligned accesses.
    internal static void Write(byte* epollEvent, uint events, ulong token)
    {
        Unsafe.WriteUnaligned(epollEvent, events);
        Unsafe.WriteUnaligned(epollEvent + OffsetOfData, token);
    }

    internal static uint Events(byte* epollEvent) => Unsafe.ReadUnaligned<uint>(epollEvent);

    internal static ulong Token(byte* epollEvent) => Unsafe.ReadUnaligned<ulong>(epollEvent + OffsetOfData);
}
