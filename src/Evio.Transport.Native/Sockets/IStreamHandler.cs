namespace Evio.Transport.Native;

/// <summary>The owner of a <see cref="StreamSocket"/>: it is told on the socket's loop what happens to it.</summary>
public interface IStreamHandler
{
    /// <summary>
    /// The socket became ready. Each change is reported once (edge-triggered): a receive or send that transfers as many bytes as it was
    /// given room for has to be repeated, now or later, since no further event is owed for what is left.
    /// </summary>
    /// <param name="events">What is ready. Connections with nothing to send see <see cref="ReadyEvents.Writable"/> as well; it is the state, not a promise.</param>
    /// <remarks>What this throws closes the connection, and goes to <see cref="EventLoopGroupOptions.OnUnhandledException"/>.</remarks>
    void OnReady(ReadyEvents events);

    /// <summary>The loop is about to end and closes the socket after this call.</summary>
    void OnLoopStopping();

    /// <summary>The socket is closed: no event will follow, and every receive and send is refused. Comes once for each started socket.</summary>
    void OnClosed();
}
