using System.Net;

namespace Evio.Transport.Native.Sockets;

/// <summary>One address of a server: a stream listener or a datagram socket, on a poller or on <see cref="System.Net.Sockets"/>.</summary>
internal interface IServerListener
{
    /// <summary>The bound address.</summary>
    EndPoint LocalEndPoint { get; }

    /// <summary>Begins to accept, or to receive. Called once.</summary>
    void Resume();

    /// <summary>Closes the listener. Nothing is accepted or received any more when the task completes.</summary>
    Task CloseAsync();
}
