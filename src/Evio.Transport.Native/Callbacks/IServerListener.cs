using System.Net;

namespace Evio.Transport.Native.Callbacks;

/// <summary>What a server needs of each of its addresses, whatever is behind it: a stream listener or a datagram socket, on a poller or not.</summary>
internal interface IServerListener
{
    /// <summary>The bound address.</summary>
    EndPoint LocalEndPoint { get; }

    /// <summary>Begins to accept, or to receive; called once, after <see cref="Events.Serving"/>.</summary>
    void Resume();

    /// <summary>Ends it; nothing is accepted or received when the task completes.</summary>
    Task CloseAsync();
}
