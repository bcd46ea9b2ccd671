using Evio.Transport.Native;

namespace Evio.Transport;

/// <summary>Options of the evio transport. They are read once, when the first end point is bound.</summary>
public sealed class EvioTransportOptions
{
    /// <summary>0777, everything that a mode of <see cref="UnixSocketMode"/> can permit.</summary>
    internal const UnixFileMode MaxUnixSocketMode = (UnixFileMode)0x1FF;

    /// <summary>The number of event loops, each with a thread of its own.</summary>
    /// <remarks>
    /// From 1 to 1024, or −1 for one per processor (<see cref="Environment.ProcessorCount"/>). As in evio, 0 means 1. Defaults to −1.
    /// </remarks>
    public int LoopCount { get; set; } = -1;

    /// <summary>Which loop becomes the owner of an accepted connection.</summary>
    /// <remarks>
    /// Defaults to <see cref="LoadBalance.LeastConnections"/>: few connections are spread evenly, too, which matters where the application
    /// runs on the loops. <see cref="LoadBalance.Random"/> is the kernel's choice, without a hand-over between threads.
    /// </remarks>
    public LoadBalance LoadBalance { get; set; } = LoadBalance.LeastConnections;

    /// <summary>Where application code runs.</summary>
    /// <remarks>Defaults to <see cref="LoopScheduling.Adaptive"/>, which is safe for handlers that block.</remarks>
    public LoopScheduling Scheduling { get; set; } = LoopScheduling.Adaptive;

    /// <summary>
    /// With <see cref="LoopScheduling.Adaptive"/>, the number of threads that may be in handlers that block or are CPU-bound for long,
    /// before the thread pool runs further application code.
    /// </summary>
    /// <remarks>
    /// At least 1; defaults to 64. At the limit, which is logged, the loops leave application code to the thread pool until half of these
    /// threads are back. When everything blocks, application code then waits for a thread as long as with
    /// <see cref="LoopScheduling.ThreadPool"/>. There are never more threads than this number and twice <see cref="LoopCount"/> together.
    /// </remarks>
    public int MaxBlockedThreads { get; set; } = 64;

    /// <summary>The processors that the loops' threads are bound to: the n-th loop to the n-th entry, in turn.</summary>
    /// <remarks>
    /// Defaults to an empty list, which binds no thread. The numbers are those of sched_setaffinity(2), from 0 to 1023. Has no effect on
    /// systems other than Linux. The thread pool's threads are never bound. With <see cref="LoopScheduling.Adaptive"/>, code that was slow the
    /// last time runs beside its loop, on any processor.
    /// </remarks>
    public IReadOnlyList<int> LoopAffinity { get; set; } = [];

    /// <summary>The longest queue of established connections that wait to be accepted, per listening socket.</summary>
    /// <remarks>
    /// From 1 to 65535. Defaults to 512. The kernel silently caps it at <c>net.core.somaxconn</c> (listen(2)). With port sharing between
    /// the loops each loop has a listening socket, and so a queue, of its own. The same number bounds how many accepted connections may
    /// wait for <c>AcceptAsync</c>: at the limit the loops stop accepting until the server has caught up.
    /// </remarks>
    public int Backlog { get; set; } = 512;

    /// <summary>
    /// Whether TCP sends small segments at once (<c>TCP_NODELAY</c>), without waiting for acknowledgements of earlier ones.
    /// </summary>
    /// <remarks>Defaults to <see langword="true"/>. Has no effect on Unix-domain sockets.</remarks>
    public bool NoDelay { get; set; } = true;

    /// <summary>The number of bytes, received and not yet consumed by the application, at which a connection stops receiving.</summary>
    /// <remarks>
    /// In bytes; defaults to 1 MiB. The last receive may bring as much again, and at most 256 KiB. <see langword="null"/> or 0 removes the
    /// limit, which lets an untrusted client fill the memory. Input beyond the limit stays in the kernel's receive buffer, and TCP flow
    /// control stops the sender.
    /// </remarks>
    public long? MaxReadBufferSize { get; set; } = 1024 * 1024;

    /// <summary>
    /// The number of unsent bytes at which <c>FlushAsync</c> makes the application wait. The application continues when half of them has
    /// left.
    /// </summary>
    /// <remarks>
    /// In bytes; defaults to 64 KiB. <see langword="null"/> or 0 removes the limit: a client that does not read then makes the server
    /// hold all that is written for it.
    /// </remarks>
    public long? MaxWriteBufferSize { get; set; } = 64 * 1024;

    /// <summary>How long an attempt to connect to one address may take.</summary>
    /// <remarks>
    /// From 1 ms on. Defaults to <see cref="Timeout.InfiniteTimeSpan"/>: the kernel gives up after about two minutes (tcp(7),
    /// <c>tcp_syn_retries</c>). Of a host name each address has this time; the lookup has the resolver's own.
    /// </remarks>
    public TimeSpan ConnectTimeout { get; set; } = Timeout.InfiniteTimeSpan;

    /// <summary>Whether other processes of the same user may bind the same TCP port at the same time (<c>SO_REUSEPORT</c>).</summary>
    /// <remarks>
    /// Defaults to <see langword="false"/>: a port in use is an error, as Kestrel's users expect. With <see langword="true"/> the
    /// kernel spreads new connections over all processes that share the port, and a busy port is no longer noticed.
    /// </remarks>
    public bool SharePort { get; set; }

    /// <summary>
    /// The mode of a Unix-domain socket's file, which decides who may connect: connecting takes the write permission (unix(7)).
    /// </summary>
    /// <remarks>
    /// Up to 0777; in configuration as octal digits, such as <c>"0660"</c>. Defaults to <see langword="null"/>: 0777 less the process's
    /// umask. The file has this mode, whatever the umask, before any client can connect, and at no moment a wider one. Without meaning for
    /// TCP, for abstract addresses and for inherited file handles.
    /// </remarks>
    public UnixFileMode? UnixSocketMode { get; set; }
}
