namespace Evio.Transport;

/// <summary>Where the application's code runs when its connection becomes readable or a paused flush may go on.</summary>
public enum EvioScheduling
{
    /// <summary>
    /// On the thread pool: the loop hands each ready connection to a pool thread, which receives, runs the application and sends.
    /// Safe for code that blocks.
    /// </summary>
    ThreadPool,

    /// <summary>
    /// On the loop's own thread: receive, application and send without any hop, the cheapest way per request.
    /// <b>Code that blocks stalls every connection of its loop</b>, and code that blocks on another connection of the same loop
    /// waits for ever. Use it only for applications whose handlers never block.
    /// </summary>
    Inline,

    /// <summary>
    /// On the loop's own thread, as with <see cref="Inline"/>, and safe for code that blocks: a thread that does not come back within one to five milliseconds loses
    /// its loop to another one, which goes on with the other connections. See <see cref="EvioTransportOptions.MaxBlockedThreads"/> for the limit. Connections whose last request computed for
    /// long get their next one when a processor is free for it, so that they do not take the loops' turns.
    /// </summary>
    Adaptive,
}
