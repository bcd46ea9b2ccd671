using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text.Json;
using Evio.Transport.Native;

namespace Evio.Soak;

/// <summary>What the callback server counts.</summary>
/// <param name="Opened">Connections that were told of.</param>
/// <param name="Closed">Those that were told to be closed.</param>
/// <param name="Detached">Those that were told to be detached.</param>
/// <param name="Sends">Sends that other threads began.</param>
/// <param name="SendsEnded">Those whose tasks have completed, with or without success.</param>
/// <param name="Wakes">Wakes that were accepted.</param>
/// <param name="Woken">Those that were made.</param>
/// <param name="Datagrams">Datagrams.</param>
/// <param name="Saturated">How often there were no more threads for callbacks that block.</param>
/// <param name="Thrown">Exceptions thrown on purpose.</param>
internal sealed record CallbackCounts(
    long Opened, long Closed, long Detached, long Sends, long SendsEnded, long Wakes, long Woken, long Datagrams, long Saturated, long Thrown)
{
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{Opened} opened, {Closed} closed, {Detached} detached, {SendsEnded} of {Sends} sends and {Woken} of {Wakes} wakes from other threads, " +
        $"{Datagrams} datagrams, {Saturated} times out of threads, {Thrown} exceptions on purpose");
}

/// <summary>What the process says of itself on request.</summary>
internal sealed record CallbackState(CallbackCounts Counts, int Connections);

/// <summary>
/// A server of the callback API whose callbacks block, throw, close each other's connections and have other threads do the same. It is a process of its own: this
/// program, started again. Whatever must not happen is a line on the standard error stream that begins with "fail:".
/// </summary>
internal sealed class CallbackHost
{
    public const string Argument = "--callback-server";
    public const string Started = "Serving: ";
    public const string State = "State ";

    /// <summary>The addresses, in this order: streams, then datagrams.</summary>
    public const int Tcp = 0;
    public const int Unix = 1;
    public const int Managed = 2;

    /// <summary>Opened throws there.</summary>
    public const int Refusing = 3;
    public const int Udp = 4;
    public const int ManagedUdp = 5;

    private const int Loops = 2;
    private const int MaxFailures = 100;
    private const int MaxFailureLength = 1000;

    private readonly Mischief _mischief;
    private readonly bool _calm;
    private readonly ConcurrentDictionary<long, Connection> _connections = new();
    private int _failures;
    private long _opened;
    private long _closed;
    private long _detached;
    private long _sends;
    private long _sendsEnded;
    private long _wakes;
    private long _woken;
    private long _datagrams;
    private long _saturated;

    private CallbackHost(int seed, bool calm)
    {
        _mischief = new Mischief(seed);
        _calm = calm;
    }

    /// <param name="arguments">The seed, the path of the Unix-domain socket, and perhaps "calm": nothing throws on purpose.</param>
    public static Task<int> RunAsync(string[] arguments) =>
        new CallbackHost(int.Parse(arguments[0], CultureInfo.InvariantCulture), calm: arguments is [_, _, "calm"]).ServeAsync(arguments[1]);

    private async Task<int> ServeAsync(string path)
    {
        TaskScheduler.UnobservedTaskException += (_, problem) => Fail($"a task that nothing awaits: {problem.Exception}");
        using var listener = _calm ? null : HostileListener.Start(_mischief);
        await using var server = await EvioServer.StartAsync(
            new Events
            {
                NumLoops = Loops,
                LoadBalance = LoadBalance.LeastConnections,
                Scheduling = LoopScheduling.Adaptive,
                MaxBlockedThreads = 2,
                ThreadsSaturated = OnThreadsSaturated,
                Opened = OnOpened,
                Data = (connection, input) => connection.AddressIndex >= Udp ? OnDatagram(connection, input) : OnData(connection, input),
                PreWrite = OnPreWrite,
                Closed = OnClosed,
                Detached = OnDetached,
                DatagramFailed = OnDatagramFailed,
            },
            "tcp://127.0.0.1:0", $"unix://{path}", "tcp-net://127.0.0.1:0", "tcp://127.0.0.1:0", "udp://127.0.0.1:0", "udp-net://127.0.0.1:0");
        using var terminated = PosixSignalRegistration.Create(PosixSignal.SIGTERM, signal =>
        {
            signal.Cancel = true;
            _ = server.StopAsync();
        });
        _ = Task.Run(() => AnswerAsync(server));
        Console.WriteLine(Started + string.Join(' ', server.Addresses.Select(static address => address is IPEndPoint { Port: var port } ? port : 0)));
        try
        {
            await server.Completion;
        }
        catch (Exception failure)
        {
            Fail($"the server has stopped: {failure}");
        }

        Check(_opened == _closed + _detached, $"the server has stopped, and told of the end of {_closed} + {_detached} connections of {_opened}");
        return _failures == 0 ? 0 : 1;
    }

    /// <summary>Says how things are, for each line that comes.</summary>
    private async Task AnswerAsync(EvioServer server)
    {
        while (await Console.In.ReadLineAsync() is { } number)
        {
            var counts = new CallbackCounts(
                Read(ref _opened), Read(ref _closed), Read(ref _detached), Read(ref _sends), Read(ref _sendsEnded), Read(ref _wakes), Read(ref _woken),
                Read(ref _datagrams), Read(ref _saturated), _mischief.Thrown);
            var state = new CallbackState(counts, server.Loops.Sum(static loop => loop.ConnectionCount));
            Console.WriteLine($"{State}{number} {JsonSerializer.Serialize(state)}");
        }
    }

    private static long Read(ref long counter) => Interlocked.Read(ref counter);

    private void Fail(string what)
    {
        if (Interlocked.Increment(ref _failures) <= MaxFailures)
        {
            Console.Error.WriteLine("fail: " + what.ReplaceLineEndings(" ")[..Math.Min(what.Length, MaxFailureLength)]);
        }
    }

    private void Check(bool holds, string otherwise)
    {
        if (!holds)
        {
            Fail(otherwise);
        }
    }

    // ---- Callbacks ----

    private void OnThreadsSaturated(int limit)
    {
        Interlocked.Increment(ref _saturated);
        if (!_calm)
        {
            _mischief.MayThrow(2, nameof(Events.ThreadsSaturated));
        }
    }

    private EvioAction OnOpened(Connection connection, ref ConnectionOptions options)
    {
        Interlocked.Increment(ref _opened);
        Check(connection.Context is null, "a connection is opened twice");
        var peer = new Peer();
        connection.Context = peer;
        using var inside = Enter(peer);
        (options.HighWaterMark, options.LowWaterMark) = _mischief.Next(2) == 0 ? (64 * 1024, 16 * 1024) : (options.HighWaterMark, options.LowWaterMark);
        if (connection.AddressIndex == Refusing)
        {
            _mischief.Throw(nameof(Events.Opened));
        }

        if (_mischief.Next(4) == 0)
        {
            var (wakes, sends) = (_mischief.Next(3), _mischief.Next(3));
            InAnotherThread(() =>
            {
                WakeUp(connection, peer, wakes);
                for (var number = 0; number < sends; number++)
                {
                    Send(connection, new Message(0, MessageKind.Greeting, number, Length: 100));
                }
            });
        }

        _mischief.MayBlock();
        return EvioAction.None;
    }

    private EvioAction OnData(Connection connection, ReadOnlySpan<byte> input)
    {
        var peer = (Peer)connection.Context!;
        using var inside = Enter(peer);
        _mischief.MayBlock();
        if (input.IsEmpty)
        {
            var woken = Interlocked.Increment(ref peer.Woken);
            Interlocked.Increment(ref _woken);
            Check(woken <= Interlocked.Read(ref peer.Wakes), "a wake that nothing asked for");

            // Those of its opening are not told of, and may come before the client has said who it is.
            if (peer.AskedWakes > peer.ToldWakes)
            {
                Write(connection, new Message(peer.Identity, MessageKind.Woken, peer.ToldWakes++, Length: 10));
            }

            return EvioAction.None;
        }

        try
        {
            var data = peer.Input.Begin(input);
            var action = EvioAction.None;
            while (action == EvioAction.None && Message.TryRead(ref data, out var ask))
            {
                if (ask.Kind == MessageKind.Hello)
                {
                    peer.Identity = ask.Connection;
                    _connections[ask.Connection] = connection;
                }

                Check(ask.Connection == peer.Identity, $"{ask} on connection {peer.Identity:x}");
                action = Answer(connection, peer, ask);
            }

            peer.Input.End(data);
            _mischief.MayBlock();
            return action;
        }
        catch (SoakException problem)
        {
            Fail($"connection {peer.Identity:x} received {problem.Message}");
            throw;
        }
    }

    private EvioAction Answer(Connection connection, Peer peer, Message ask)
    {
        switch (ask.Kind)
        {
            case MessageKind.Echo:
                Write(connection, new Message(peer.Identity, MessageKind.Echoed, peer.Echoed++, Length: ask.Length));
                break;
            case MessageKind.Send:
                InAnotherThread(() =>
                {
                    for (var number = 0; number < ask.Argument; number++)
                    {
                        Send(connection, new Message(peer.Identity, MessageKind.Sent, number, ask.Number, ask.Length));
                    }
                });
                break;
            case MessageKind.Wake:
                peer.AskedWakes += (int)ask.Argument;
                InAnotherThread(() => WakeUp(connection, peer, (int)ask.Argument));
                break;
            case MessageKind.Timer:
                // Far off: a callback that has lost its loop may cancel a timer only after the loop has found it due.
                var cancelled = connection.Loop.Schedule(TimeSpan.FromHours(2), _ => Fail("a timer that was cancelled is due"), null);
                connection.Loop.Schedule(
                    TimeSpan.FromMilliseconds(ask.Argument),
                    _ => Send(connection, new Message(peer.Identity, MessageKind.Timed, 0, ask.Number, Length: 20)),
                    null);
                cancelled.Cancel();
                Check(!cancelled.IsPending, "a timer that was cancelled is pending");
                break;
            case MessageKind.Post:
                Check(
                    connection.Loop.TryPost(
                        _ =>
                        {
                            _mischief.MayBlock();
                            Send(connection, new Message(peer.Identity, MessageKind.Posted, 0, ask.Number, Length: 20));
                        },
                        null),
                    "the loop takes no call");
                break;
            case MessageKind.Close:
                return EvioAction.Close;
            case MessageKind.CloseElsewhere:
                InAnotherThread(connection.Close);
                break;
            case MessageKind.Shutdown:
                connection.ShutdownSend();
                break;
            case MessageKind.ShutdownElsewhere:
                InAnotherThread(connection.ShutdownSend);
                break;
            case MessageKind.Detach:
                return EvioAction.Detach;
            case MessageKind.Throw:
                _mischief.Throw(nameof(Events.Data));
                break;
            case MessageKind.ThrowAtEnd:
                peer.ThrowsAtEnd = !_calm;
                break;
            case MessageKind.CloseOther:
                CloseOther(ask.Argument);
                break;
            case MessageKind.CloseOtherBeforeWrite:
                peer.ClosesBeforeWrite = ask.Argument;
                Write(connection, new Message(peer.Identity, MessageKind.Echoed, peer.Echoed++, Length: ask.Length));
                break;
        }

        return EvioAction.None;
    }

    private EvioAction OnDatagram(Connection connection, ReadOnlySpan<byte> datagram)
    {
        Interlocked.Increment(ref _datagrams);
        Message ask;
        try
        {
            Check(Message.TryRead(ref datagram, out ask) && datagram.IsEmpty, "a datagram that is none");
        }
        catch (SoakException problem)
        {
            Fail($"a datagram with {problem.Message}");
            throw;
        }

        switch (ask.Kind)
        {
            case MessageKind.CloseOther:
                CloseOther(ask.Argument);
                break;
            case MessageKind.Invoke:
                connection.Loop.Invoke(new BlockingCall(_mischief));
                break;
            case MessageKind.Throw:
                _mischief.Throw("Data of a datagram");
                break;
        }

        Write(connection, new Message(ask.Connection, MessageKind.Echoed, ask.Number, Length: ask.Length));
        return EvioAction.None;
    }

    private void OnPreWrite(Connection connection)
    {
        if (connection.AddressIndex >= Udp)
        {
            return;
        }

        var peer = (Peer)connection.Context!;
        using var inside = Enter(peer);
        if (peer.ClosesBeforeWrite is var other and not 0)
        {
            peer.ClosesBeforeWrite = 0;
            CloseOther(other);
        }
    }

    private EvioAction OnClosed(Connection connection, Exception? error)
    {
        Interlocked.Increment(ref _closed);
        if (error is not (null or MischiefException or SocketException or TimeoutException or SoakException))
        {
            Fail($"a connection has ended because of {error}");
        }

        End(connection);
        return EvioAction.None;
    }

    private EvioAction OnDetached(Connection connection, Socket socket)
    {
        Interlocked.Increment(ref _detached);
        using (socket)
        {
            try
            {
                socket.Send(new Message(((Peer)connection.Context!).Identity, MessageKind.Bye, 0, Length: 1000).ToBytes());
            }
            catch (SocketException)
            {
                // The client has gone.
            }
        }

        End(connection);
        return EvioAction.None;
    }

    /// <summary>The last callback.</summary>
    private void End(Connection connection)
    {
        var peer = (Peer)connection.Context!;
        using var inside = Enter(peer);
        Check(Interlocked.Increment(ref peer.Ends) == 1, "a connection has two ends");
        _connections.TryRemove(peer.Identity, out _);
        _mischief.MayBlock();
        if (peer.ThrowsAtEnd)
        {
            _mischief.Throw("the last callback");
        }
    }

    private void OnDatagramFailed(Connection connection, Exception exception)
    {
        if (exception is not MischiefException)
        {
            Fail($"a datagram has failed because of {exception}");
        }
    }

    // ---- What callbacks do ----

    /// <summary>There is one callback about a connection at a time, and none after the last.</summary>
    private Inside Enter(Peer peer)
    {
        Check(Interlocked.Increment(ref peer.Callbacks) == 1, "two callbacks about a connection at a time");
        Check(Volatile.Read(ref peer.Ends) == 0, "a callback about a connection that has ended");
        return new Inside(peer);
    }

    private static void Write(Connection connection, Message message)
    {
        var output = connection.Output;
        message.Write(output.GetSpan(message.Size));
        output.Advance(message.Size);
    }

    private void Send(Connection connection, Message message)
    {
        Interlocked.Increment(ref _sends);
        connection.SendAsync(message.ToBytes()).ContinueWith(
            sent =>
            {
                Interlocked.Increment(ref _sendsEnded);
                if (sent.Exception is { InnerException: not IOException } failure)
                {
                    Fail($"a send has failed because of {failure}");
                }
            },
            TaskScheduler.Default);
    }

    private void WakeUp(Connection connection, Peer peer, int count)
    {
        for (; count > 0; count--)
        {
            // Counted before, since it may be made before this returns.
            Interlocked.Increment(ref peer.Wakes);
            if (connection.Wake())
            {
                Interlocked.Increment(ref _wakes);
            }
        }
    }

    private void CloseOther(long identity)
    {
        if (_connections.TryGetValue(identity, out var other))
        {
            other.Close();
        }
    }

    private void InAnotherThread(Action action) => ThreadPool.UnsafeQueueUserWorkItem(
        _ =>
        {
            if (_mischief.Next(4) == 0)
            {
                Thread.Sleep(_mischief.Next(10));
            }

            action();
        },
        null);

    /// <summary>What the server knows of a connection.</summary>
    private sealed class Peer
    {
        public readonly InputStream Input = new();
        public int Callbacks;
        public int Ends;
        public long Wakes;
        public long Woken;
        public int AskedWakes;
        public int ToldWakes;
        public int Echoed;
        public long Identity;
        public long ClosesBeforeWrite;
        public bool ThrowsAtEnd;
    }

    private readonly struct Inside(Peer peer) : IDisposable
    {
        public void Dispose() => Interlocked.Decrement(ref peer.Callbacks);
    }

    private sealed class BlockingCall(Mischief mischief) : ILoopCall
    {
        public LoopCallCost Cost { get; set; }

        public IThreadPoolWorkItem? Run()
        {
            mischief.MayBlock();
            return null;
        }

        void IThreadPoolWorkItem.Execute() => Run();
    }
}
