namespace Evio.Transport.Native;

/// <summary>What the server does after a callback. The callback's output is sent first.</summary>
public enum EvioAction
{
    /// <summary>Go on.</summary>
    None,

    /// <summary>
    /// Take the connection off its loop. When the pending output is sent, <see cref="Events.Detached"/> gets the connection as a socket of
    /// its own. UDP peers cannot be detached; for them it means <see cref="None"/>.
    /// </summary>
    Detach,

    /// <summary>Close the connection when the pending output is sent. A later <see cref="None"/> does not take it back.</summary>
    Close,

    /// <summary>
    /// Stop the server: every connection is closed, with its last callback, and then <see cref="EvioServer.Serve"/> returns.
    /// </summary>
    Shutdown,
}
