using Evio.Transport.Native;

namespace Evio.Transport;

/// <summary>
/// The event loop of a connection: a feature of every connection that this transport accepts or makes, and of the requests on it
/// (<c>context.Features.Get&lt;IEventLoopFeature&gt;()</c>).
/// </summary>
public interface IEventLoopFeature
{
    /// <summary>The loop that owns the connection, from its first byte to its last. From any thread.</summary>
    /// <remarks>With <see cref="LoopScheduling.ThreadPool"/> the application does not run on it.</remarks>
    EventLoop Loop { get; }
}
