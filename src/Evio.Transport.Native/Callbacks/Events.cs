using System.Net.Sockets;

namespace Evio.Transport.Native;

/// <summary>A server is about to serve: its addresses are bound, and nothing has been accepted yet. Called on loop 0.</summary>
public delegate EvioAction ServingCallback(EvioServer server);

/// <summary>A connection was opened; always its first callback.</summary>
/// <param name="connection">The connection; what is written to it is sent first of all.</param>
/// <param name="options">How the connection is to behave. Set what should differ from the defaults.</param>
public delegate EvioAction OpenedCallback(Connection connection, ref ConnectionOptions options);

/// <summary>A connection was closed; always its last callback, and exactly one for each <see cref="Events.Opened"/> that is not detached.</summary>
/// <param name="connection">The connection; it can no longer be written to.</param>
/// <param name="error">Why, if it was not closed by the peer's end of output, by <see cref="EvioAction.Close"/> or by the end of the server.</param>
public delegate EvioAction ClosedCallback(Connection connection, Exception? error);

/// <summary>A connection has left its loop after <see cref="EvioAction.Detach"/>.</summary>
/// <param name="connection">The connection; it can no longer be written to.</param>
/// <param name="socket">The connected socket, in blocking mode. The callee owns it and disposes it.</param>
public delegate EvioAction DetachedCallback(Connection connection, Socket socket);

/// <summary>Output is about to be sent, all that was written since the last time.</summary>
/// <param name="connection">The connection.</param>
public delegate void PreWriteCallback(Connection connection);

/// <summary>Input has come, or <see cref="Connection.Wake"/> was called, or a datagram has come.</summary>
/// <param name="connection">
/// The connection: what is to be answered is written to it. For UDP it stands for the sender of this datagram, during this call only.
/// </param>
/// <param name="input">
/// What has come, in a buffer of the loop's: valid during the call only. Empty after a <see cref="Connection.Wake"/>, and for empty datagrams.
/// </param>
public delegate EvioAction DataCallback(Connection connection, ReadOnlySpan<byte> input);

/// <summary>The time that <see cref="Events.Tick"/> asked for has come.</summary>
/// <param name="delay">
/// To be set: the time from this tick's due moment to the next one's, so that ticks do not drift. If that moment has passed when the call returns, the next tick
/// comes at the first whole number of delays after the due moment that is still ahead: what was missed is left out. Zero or less ends the ticks.
/// </param>
public delegate EvioAction TickCallback(out TimeSpan delay);

/// <summary>What a server does, in callbacks; evio's <c>Events</c>.</summary>
/// <remarks>
/// <para>
/// All callbacks about one connection are made on the one loop that owns it, never two at a time. They must not block, since every connection of that loop
/// waits meanwhile, unless <see cref="Scheduling"/> is <see cref="LoopScheduling.Adaptive"/>.
/// </para>
/// <para>
/// What a connection's callback throws ends that connection, with the exception as the error of <see cref="Closed"/>. <see cref="Closed"/> and <see cref="Detached"/> are a connection's last
/// callbacks: what they throw goes to <see cref="CallbackFailed"/>. What <see cref="Serving"/> or <see cref="Tick"/> throws stops the server and comes out of <see cref="EvioServer.Serve"/>. What a
/// notification throws (<see cref="CallbackFailed"/>, <see cref="DatagramFailed"/>, <see cref="ThreadsSaturated"/>) is written to <see cref="System.Diagnostics.Trace"/> once for a server, and ignored.
/// </para>
/// <para>
/// UDP has no connections, hence no <see cref="Opened"/>, <see cref="Closed"/> and <see cref="Detached"/>: <see cref="Data"/> is called once for
/// each datagram, empty ones included, with a <see cref="Connection"/> that stands for its sender. What it writes is the reply, one datagram of at
/// most 65,507 bytes; without output there is none. <see cref="PreWrite"/> is called once for each reply, and replies leave together, after the
/// callbacks of all datagrams that had come. A reply that the kernel has no room for is lost, as any datagram may be. Of the actions only
/// <see cref="EvioAction.Shutdown"/> means anything.
/// </para>
/// <para>
/// What <see cref="Data"/> or <see cref="PreWrite"/> throws for a datagram, for a reply that is too large among other things, costs the sender the
/// reply and is told to <see cref="DatagramFailed"/>. It does not stop the server: nobody who can send a datagram is to be able to do that.
/// </para>
/// </remarks>
public sealed class Events
{
    /// <summary>The number of loops: n, 0 or 1 for one, −1 for one per processor. Defaults to 1. The name is evio's; elsewhere it is <c>LoopCount</c>.</summary>
    public int NumLoops { get; set; } = 1;

    /// <summary>Which loop gets a new connection. Defaults to <see cref="Native.LoadBalance.Random"/>.</summary>
    public LoadBalance LoadBalance { get; set; }

    /// <summary>Whether callbacks may block: <see cref="LoopScheduling.Inline"/>, the default, or <see cref="LoopScheduling.Adaptive"/>.</summary>
    /// <remarks>
    /// <para>
    /// With the latter, a callback that does not come back within one to five milliseconds goes on beside the loop, and the loop on another thread. Everything
    /// else about its connection waits until it has returned: there are never two callbacks about one connection at a time, and what it writes is sent then.
    /// For <see cref="PreWrite"/> and for datagrams it changes nothing: they must not block.
    /// </para>
    /// <para>
    /// Since any callback may be late, a busy machine is enough, there is no writing to <i>other</i> connections' <see cref="Connection.Output"/> with it; that is what
    /// <see cref="Connection.SendAsync"/> is for.
    /// </para>
    /// </remarks>
    public LoopScheduling Scheduling { get; set; } = LoopScheduling.Inline;

    /// <inheritdoc cref="EventLoopGroupOptions.MaxBlockedThreads"/>
    public int MaxBlockedThreads { get; set; } = 64;

    /// <inheritdoc cref="EventLoopGroupOptions.OnThreadsSaturated" path="/summary"/>
    /// <remarks>What it throws is ignored, after one line in <see cref="System.Diagnostics.Trace"/>.</remarks>
    public Action<int>? ThreadsSaturated { get; set; }

    /// <inheritdoc cref="EventLoopGroupOptions.LoopAffinity"/>
    public IReadOnlyList<int> LoopAffinity { get; set; } = [];

    /// <summary>How long the pending output of closing connections may take, per connection. Defaults to 5 seconds.</summary>
    /// <remarks>
    /// A peer that does not read until then is cut off with a reset. It applies to <see cref="EvioAction.Close"/> and to the end of the server.
    /// </remarks>
    public TimeSpan CloseTimeout { get; set; } = TimeSpan.FromSeconds(5);

    /// <inheritdoc cref="ServingCallback"/>
    public ServingCallback? Serving { get; set; }

    /// <inheritdoc cref="OpenedCallback"/>
    public OpenedCallback? Opened { get; set; }

    /// <inheritdoc cref="ClosedCallback"/>
    public ClosedCallback? Closed { get; set; }

    /// <inheritdoc cref="DetachedCallback"/>
    /// <remarks>Without it a detached connection is closed.</remarks>
    public DetachedCallback? Detached { get; set; }

    /// <inheritdoc cref="PreWriteCallback"/>
    public PreWriteCallback? PreWrite { get; set; }

    /// <inheritdoc cref="DataCallback"/>
    public DataCallback? Data { get; set; }

    /// <summary>What <see cref="Closed"/> or <see cref="Detached"/> has thrown, the last callbacks of a connection. On the connection's loop, or on the thread that the callback was late on.</summary>
    /// <remarks>Without it the first such exception of a server is written to <see cref="System.Diagnostics.Trace"/>.</remarks>
    public Action<Connection, Exception>? CallbackFailed { get; set; }

    /// <summary>What <see cref="Data"/> or <see cref="PreWrite"/> threw for a datagram, whose sender the connection stands for.</summary>
    /// <remarks>Without it the first such exception of a server is written to <see cref="System.Diagnostics.Trace"/>.</remarks>
    public Action<Connection, Exception>? DatagramFailed { get; set; }

    /// <inheritdoc cref="TickCallback"/>
    /// <remarks>Called on loop 0, first when the server starts. Ticks that a late one has missed are not made up for.</remarks>
    public TickCallback? Tick { get; set; }
}
