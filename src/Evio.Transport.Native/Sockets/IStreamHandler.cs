namespace Evio.Transport.Native;

/// <summary>Handles the events of a <see cref="StreamSocket"/>, on the socket's loop.</summary>
public interface IStreamHandler
{
    /// <summary>
    /// Called when the socket has become ready. Each change is reported once (edge-triggered). A receive or send that transfers as many
    /// bytes as it was given room for must be repeated, now or later: no further event comes for what is left.
    /// </summary>
    /// <param name="events">
    /// What is ready. <see cref="ReadyEvents.Writable"/> also comes to connections with nothing to send: it is a state at that moment, not
    /// a promise.
    /// </param>
    /// <remarks>
    /// If this throws, the connection is closed, and the exception goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.
    /// </remarks>
    void OnReady(ReadyEvents events);

    /// <summary>Called when the loop is about to end. The loop closes the socket after this call.</summary>
    void OnLoopStopping();

    /// <summary>Called once for each started socket that is closed. No event follows, and every receive and send is refused.</summary>
    void OnClosed();
}
