using System.IO.Pipelines;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Text;
using Evio.Transport;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging.Abstractions;

namespace Exploration.Scenarios;

/// <summary>A connection of the Kestrel transport on a loop of its own, with its peer and what is found at the end of every scenario.</summary>
internal sealed class PipeWorld
{
    private readonly Execution _run;
    private readonly TransportLoops _loops;
    private readonly ConnectionSet _connections;
    private readonly CheckedPool _pool;
    private readonly EvioTransportOptions _options = new() { LoopCount = 1, Scheduling = LoopScheduling.Inline };
    private bool _stopped;

    internal PipeWorld(Execution run, Action<EvioTransportOptions>? configure = null, int blockSize = 4096, int sendBuffer = 0, bool rentsInSteps = false)
    {
        _run = run;
        _pool = new CheckedPool(blockSize, rentsInSteps);
        configure?.Invoke(_options);
        _loops = new TransportLoops(_options, NullLogger.Instance, _pool, meterFactory: null);
        _connections = new ConnectionSet(_loops);
        (Connection, Peer) = Connect(sendBuffer);
        Connection.ConnectionClosed.Register(() => Closed++);
    }

    internal Peer Peer { get; }

    internal EvioConnection Connection { get; }

    internal PipeReader Input => Connection.Input;

    internal PipeWriter Output => Connection.Output;

    internal int OutstandingBlocks => _pool.Outstanding;

    internal EventLoop Loop => _loops.Group.Loops[0];

    /// <summary>Whether the user reads on threads of the pool, beside the loop that his input arrives on.</summary>
    internal bool Yields { get; init; }

    /// <summary>Whether the first read is left to the loop, as those of accepted connections are.</summary>
    internal bool FirstReadOnLoop
    {
        init => Connection.Input.FirstReadOnLoop = value;
    }

    /// <summary>Whether the user has come to his end, and flushes no more.</summary>
    internal bool IsDone { get; set; }

    /// <summary>How often ConnectionClosed has fired.</summary>
    internal int Closed { get; private set; }

    /// <summary>What was read.</summary>
    internal StringBuilder Text { get; } = new();

    /// <summary>How many reads came back because they were cancelled.</summary>
    internal int CancelledReads { get; private set; }

    /// <summary>Makes a connection on the loop. Whoever makes one beside the world's own ends it.</summary>
    internal (EvioConnection Connection, Peer Peer) Connect(int sendBuffer = 0)
    {
        var peer = Peer.Create(out var descriptor, sendBuffer);
        EvioConnection? connection = null;
        Loop.TryPostInternal(
            _ =>
            {
                Loop.ConnectionAdded();
                var socket = new StreamSocket(Loop, descriptor, localEndPoint: null, new UnixDomainSocketEndPoint("\0"));
                connection = new EvioConnection(_connections, socket, _options, NullLogger.Instance);
                socket.Start(connection);
                _connections.Add(connection);
            },
            null);
        Execution.WaitFor("the connection", () => connection is not null);
        return (connection!, peer);
    }

    /// <summary>Reads once, and consumes what came.</summary>
    internal async Task<ReadResult> ReadAsync(CancellationToken token = default)
    {
        if (Yields)
        {
            await ToPool();
        }

        var result = await Execution.Later(Input.ReadAsync(token));
        CancelledReads += result.IsCanceled ? 1 : 0;
        foreach (var segment in result.Buffer)
        {
            Text.Append(Encoding.ASCII.GetString(segment.Span));
        }

        Execution.Step("advances");
        Input.AdvanceTo(result.Buffer.End);
        return result;
    }

    internal async Task ReadToEndAsync()
    {
        while (!(await ReadAsync()).IsCompleted)
        {
        }
    }

    /// <summary>Reads until the input ends or the connection's output does.</summary>
    internal async Task ReadUntilClosedAsync()
    {
        try
        {
            await ReadToEndAsync();
        }
        catch (ConnectionAbortedException)
        {
            // The output was complete first.
        }
    }

    /// <summary>Writes one byte, and flushes it.</summary>
    internal ValueTask<FlushResult> FlushAsync(char what)
    {
        Write(what);
        return Output.FlushAsync();
    }

    internal void Write(char what)
    {
        Output.GetSpan(1)[0] = (byte)what;
        Output.Advance(1);
    }

    /// <summary>Does what the monitor does when a flush has waited for two of its looks.</summary>
    internal void FindOverdue()
    {
        Execution.WaitFor("a deferred flush", () => Connection.Output.HasDeferred || IsDone);
        if (Connection.Output.HasDeferred)
        {
            _ = Connection.Output.CheckDeferred() && Connection.Output.CheckDeferred();
        }
    }

    /// <summary>Goes on on a thread of the pool.</summary>
    internal static PoolAwaitable ToPool() => default;

    internal Task StopLoopsAsync()
    {
        _stopped = true;
        return _loops.DisposeAsync().AsTask();
    }

    /// <summary>Ends it all. Nothing may be left: no block, no descriptor, no thread, and whoever asked was told of the end, once.</summary>
    internal void End()
    {
        Connection.Abort(new ConnectionAbortedException("The scenario ends."));
        Execution.WaitFor("the connection's end", Connection.DisposeAsync());
        Assert.Equal(1, Closed);
        if (!_stopped)
        {
            Execution.WaitFor("the loops' end", StopLoopsAsync());
        }

        Execution.WaitFor("the pools' end", _connections.EndAsync());
        Assert.Equal(0, Loop.ConnectionCount);
        Assert.Equal(0, _pool.Outstanding);
        Assert.Empty(_run.Descriptors.StillOpen);
        Peer.Dispose();
    }

    internal readonly struct PoolAwaitable : ICriticalNotifyCompletion
    {
        public bool IsCompleted { get; }

        public PoolAwaitable GetAwaiter() => this;

        public void GetResult()
        {
        }

        public void OnCompleted(Action continuation) => UnsafeOnCompleted(continuation);

        public void UnsafeOnCompleted(Action continuation) => Evio.ThreadPool.UnsafeQueueUserWorkItem(static run => run(), continuation, preferLocal: false);
    }
}
