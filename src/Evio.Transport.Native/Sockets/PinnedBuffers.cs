using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using Evio.Transport.Native.Interop;

namespace Evio.Transport.Native.Sockets;

/// <summary>Buffers as an array of <c>struct iovec</c>, pinned for one call.</summary>
internal unsafe struct PinnedBuffers
{
    private VectorArray _vectors;
    private HandleArray _handles;

    internal int Count { get; private set; }

    [UnscopedRef]
    internal ReadOnlySpan<IoVector> Vectors => ((ReadOnlySpan<IoVector>)_vectors)[..Count];

    internal void Add(ReadOnlyMemory<byte> buffer)
    {
        var handle = buffer.Pin();
        _handles[Count] = handle;
        _vectors[Count] = new IoVector { Base = (byte*)handle.Pointer, Length = (nuint)buffer.Length };
        Count++;
    }

    internal void Release()
    {
        for (var i = 0; i < Count; i++)
        {
            _handles[i].Dispose();
        }
    }

    [InlineArray(StreamSocket.MaxBuffers)]
    private struct VectorArray
    {
        private IoVector _first;
    }

    [InlineArray(StreamSocket.MaxBuffers)]
    private struct HandleArray
    {
        private System.Buffers.MemoryHandle _first;
    }
}
