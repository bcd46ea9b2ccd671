namespace Evio.Transport.Native;

/// <summary>What is to happen after a callback. Output that the callback wrote is sent first.</summary>
public enum EvioAction
{
    /// <summary>Go on.</summary>
    None,

    /// <summary>
    /// Take the connection off its loop: when the pending output is sent, <see cref="Events.Detached"/> gets it as a socket of its own. UDP peers cannot
    /// be detached; for them it means <see cref="None"/>.
    /// </summary>
    Detach,

    /// <summary>Close the connection when the pending output is sent. It cannot be taken back by a later <see cref="None"/>.</summary>
    Close,

    /// <summary>Stop the server: every connection is closed and told, and then <see cref="EvioServer.Serve"/> returns.</summary>
    Shutdown,
}
