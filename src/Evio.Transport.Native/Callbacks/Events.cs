using System.Net.Sockets;

namespace Evio.Transport.Native;

/// <summary>Called when a server is about to serve: its addresses are bound, and nothing has been accepted yet. On loop 0.</summary>
public delegate EvioAction ServingCallback(EvioServer server);

/// <summary>Called when a connection was opened; always its first callback.</summary>
/// <param name="connection">The connection. Output that is written here is sent first of all.</param>
/// <param name="options">The connection's options. Set what should differ from the defaults.</param>
public delegate EvioAction OpenedCallback(Connection connection, ref ConnectionOptions options);

/// <summary>
/// Called when a connection was closed; always its last callback. It is called exactly once for each <see cref="Events.Opened"/> whose
/// connection is not detached.
/// </summary>
/// <param name="connection">The connection; it can no longer be written to.</param>
/// <param name="error">
/// The reason, if the connection was not closed by the peer's end of output, by <see cref="EvioAction.Close"/> or by the end of the server.
/// </param>
public delegate EvioAction ClosedCallback(Connection connection, Exception? error);

/// <summary>Called when a connection has left its loop after <see cref="EvioAction.Detach"/>.</summary>
/// <param name="connection">The connection; it can no longer be written to.</param>
/// <param name="socket">The connected socket, in blocking mode. The callback owns it and has to dispose it.</param>
public delegate EvioAction DetachedCallback(Connection connection, Socket socket);

/// <summary>Called when output is about to be sent: all that was written since the last call.</summary>
/// <param name="connection">The connection.</param>
public delegate void PreWriteCallback(Connection connection);

/// <summary>Called when input has come, when <see cref="Connection.Wake"/> was called, or when a datagram has come.</summary>
/// <param name="connection">
/// The connection, to which the answer is written. For UDP it stands for the sender of this datagram, during this call only.
/// </param>
/// <param name="input">
/// The input, in a buffer of the loop: valid during the call only. Empty after a <see cref="Connection.Wake"/>, and for empty datagrams.
/// </param>
public delegate EvioAction DataCallback(Connection connection, ReadOnlySpan<byte> input);

/// <summary>Called when the time has come for which <see cref="Events.Tick"/> has asked.</summary>
/// <param name="delay">
/// The callback sets it: the time from the moment when this tick was due to the moment when the next one is due, so that ticks do not
/// drift. Zero or less ends the ticks. If the next moment has passed when the call returns, the missed ticks are left out. The next tick
/// then comes at the first whole number of delays after the due moment that is still ahead.
/// </param>
public delegate EvioAction TickCallback(out TimeSpan delay);

/// <summary>The callbacks and the options of a server; evio's <c>Events</c>.</summary>
/// <remarks>
/// <para>
/// The one loop that owns a connection makes all callbacks about it, never two at a time. Callbacks must not block, because every
/// connection of that loop waits meanwhile. They may block if <see cref="Scheduling"/> is <see cref="LoopScheduling.Adaptive"/>.
/// </para>
/// <para>
/// An exception of a connection's callback ends that connection, and is the error of <see cref="Closed"/>. <see cref="Closed"/> and
/// <see cref="Detached"/> are a connection's last callbacks: their exceptions go to <see cref="CallbackFailed"/>. An exception of
/// <see cref="Serving"/> or <see cref="Tick"/> stops the server, and <see cref="EvioServer.Serve"/> throws it. An exception of a
/// notification (<see cref="CallbackFailed"/>, <see cref="DatagramFailed"/>, <see cref="ThreadsSaturated"/>) is written to
/// <see cref="System.Diagnostics.Trace"/> once for a server, and ignored.
/// </para>
/// <para>
/// UDP has no connections, and so no <see cref="Opened"/>, <see cref="Closed"/> and <see cref="Detached"/>. <see cref="Data"/> is called
/// once for each datagram, empty ones included, with a <see cref="Connection"/> that stands for the sender. The output of the call is the
/// reply, one datagram of at most 65,507 bytes; without output no reply is sent. <see cref="PreWrite"/> is called once for each reply.
/// Replies leave together, after the callbacks of all datagrams that had come. A reply for which the kernel has no room is lost, as any
/// datagram may be. Of the actions, only <see cref="EvioAction.Shutdown"/> has an effect.
/// </para>
/// <para>
/// If <see cref="Data"/> or <see cref="PreWrite"/> throws for a datagram, the sender gets no reply, and the exception goes to
/// <see cref="DatagramFailed"/>. A reply that is too large causes such an exception. The exception does not stop the server, because any
/// sender of a datagram could do that otherwise.
/// </para>
/// </remarks>
public sealed class Events
{
    /// <summary>
    /// The number of loops; 0 means 1, and −1 one per processor. Defaults to 1. The name is evio's; elsewhere it is <c>LoopCount</c>.
    /// </summary>
    public int NumLoops { get; set; } = 1;

    /// <summary>Which loop gets a new connection. Defaults to <see cref="Native.LoadBalance.Random"/>.</summary>
    public LoadBalance LoadBalance { get; set; }

    /// <summary>
    /// Whether callbacks may block: <see cref="LoopScheduling.Inline"/>, the default, or <see cref="LoopScheduling.Adaptive"/>.
    /// </summary>
    /// <remarks>
    /// <para>
    /// With <see cref="LoopScheduling.Adaptive"/>, a callback that does not return within one to five milliseconds continues on its thread,
    /// and another thread runs the loop. Everything else about the callback's connection waits until it has returned: there are never two
    /// callbacks about one connection at a time. Its output is sent then. <see cref="PreWrite"/> and callbacks for datagrams must not block
    /// in any case, because <see cref="LoopScheduling.Adaptive"/> changes nothing for them.
    /// </para>
    /// <para>
    /// Any callback may take that long, because a busy machine is enough. So with <see cref="LoopScheduling.Adaptive"/>, no callback can
    /// write to the <see cref="Connection.Output"/> of <i>other</i> connections. Use <see cref="Connection.SendAsync"/> for that.
    /// </para>
    /// </remarks>
    public LoopScheduling Scheduling { get; set; } = LoopScheduling.Inline;

    /// <inheritdoc cref="EventLoopGroupOptions.MaxBlockedThreads"/>
    public int MaxBlockedThreads { get; set; } = 64;

    /// <inheritdoc cref="EventLoopGroupOptions.OnThreadsSaturated" path="/summary"/>
    /// <remarks>An exception of the callback is ignored, after one line in <see cref="System.Diagnostics.Trace"/>.</remarks>
    public Action<int>? ThreadsSaturated { get; set; }

    /// <inheritdoc cref="EventLoopGroupOptions.LoopAffinity"/>
    public IReadOnlyList<int> LoopAffinity { get; set; } = [];

    /// <summary>How long the pending output of a closing connection may take. Defaults to 5 seconds.</summary>
    /// <remarks>
    /// If the peer does not read until then, the connection is reset. The time-out applies to <see cref="EvioAction.Close"/> and to the end
    /// of the server.
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

    /// <summary>
    /// Called with an exception of <see cref="Closed"/> or <see cref="Detached"/>, the last callbacks of a connection. On the connection's
    /// loop, or on the thread of the blocked callback.
    /// </summary>
    /// <remarks>Without it the first such exception of a server is written to <see cref="System.Diagnostics.Trace"/>.</remarks>
    public Action<Connection, Exception>? CallbackFailed { get; set; }

    /// <summary>
    /// Called with an exception of <see cref="Data"/> or <see cref="PreWrite"/> for a datagram. The connection stands for the datagram's
    /// sender.
    /// </summary>
    /// <remarks>Without it the first such exception of a server is written to <see cref="System.Diagnostics.Trace"/>.</remarks>
    public Action<Connection, Exception>? DatagramFailed { get; set; }

    /// <inheritdoc cref="TickCallback"/>
    /// <remarks>Called on loop 0, first when the server starts. Ticks that were missed during a tick are left out.</remarks>
    public TickCallback? Tick { get; set; }
}
