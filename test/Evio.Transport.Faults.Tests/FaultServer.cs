using System.Buffers;
using System.Collections.Concurrent;
using System.Globalization;
using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.Faults.Tests;

/// <summary>Where the servers of the child process are: each one in every scheduling mode that it has, the inline one first.</summary>
internal sealed record FaultServerPorts(int[] Kestrel, int[] Callbacks, int[] Datagrams);

/// <summary>What the child process has open, or should not have any more.</summary>
/// <param name="Blocks">Blocks of the servers' memory pools that are not back.</param>
/// <param name="Violations">What was done with blocks that may not be done.</param>
/// <param name="Contexts">Connection objects that the garbage collector did not get.</param>
/// <param name="Connections">Connections that the loops count.</param>
/// <param name="Loops">Loops that answer.</param>
/// <param name="Unhandled">What was logged as an unhandled exception of a loop.</param>
internal sealed record FaultServerState(int Blocks, string[] Violations, int Contexts, int Connections, int Loops, string[] Unhandled);

/// <summary>
/// Echo servers on Kestrel and on the callback API, in every scheduling mode, in a process of their own; and what else a fault can be met in, on command. A connection whose first byte is <see cref="Abort"/> is aborted, one whose first byte is <see cref="Detach"/> leaves the callback API.
/// </summary>
internal sealed class FaultServer(CollectedLogs logs)
{
    internal const string Argument = "--fault-server";
    internal const byte Echo = (byte)'E';
    internal const byte Abort = (byte)'A';
    internal const byte Detach = (byte)'D';

    /// <summary>The modes of Kestrel's servers.</summary>
    internal static readonly LoopScheduling[] Modes = [LoopScheduling.Inline, .. Enum.GetValues<LoopScheduling>().Except([LoopScheduling.Inline])];

    /// <summary>The modes of the callback API's.</summary>
    internal static readonly LoopScheduling[] CallbackModes = [LoopScheduling.Inline, LoopScheduling.Adaptive];

    /// <summary>The number of loops of each server.</summary>
    internal const int Loops = 2;

    /// <summary>How many threads may be late in each adaptive server.</summary>
    internal const int MaxBlockedThreads = 8;

    /// <summary>What a detached connection says.</summary>
    internal static readonly byte[] Detached = "detached"u8.ToArray();

    private readonly ConcurrentQueue<WeakReference> _connections = new();
    private readonly StrictMemoryPoolFactory _pools = new(StrictMemoryPool.LargeBlocks);
    private readonly List<EventLoop> _loops = [];
    private readonly Dictionary<string, EvioTransportFactory> _outbound = [];

    internal static async Task RunAsync()
    {
        using var logs = new CollectedLogs();
        await new FaultServer(logs).ServeAsync();
    }

    private async Task ServeAsync()
    {
        var kestrel = new List<WebApplication>();
        foreach (var mode in Modes)
        {
            // Each call that asks a socket for its address is made where the listener has a wildcard.
            var application = Build(mode, mode == LoopScheduling.Inline ? IPAddress.Any : IPAddress.Loopback);
            await application.StartAsync();
            kestrel.Add(application);
            var transport = application.Services.GetRequiredService<EvioTransportFactory>();
            _loops.AddRange(transport.Loops);
            _outbound.Add(mode.ToString(), transport);
        }

        var callbacks = new List<EvioServer>();
        foreach (var mode in CallbackModes)
        {
            var server = await EvioServer.StartAsync(Events(mode), "tcp://127.0.0.1:0", "udp://127.0.0.1:0");
            callbacks.Add(server);
            _loops.AddRange(server.Loops);
        }

        Answer(new FaultServerPorts(
            [.. kestrel.Select(PortOf)],
            [.. callbacks.Select(static server => PortOf(server.Addresses[0]))],
            [.. callbacks.Select(static server => PortOf(server.Addresses[1]))]));
        while (await Console.In.ReadLineAsync() is { } command)
        {
            Answer(await AnswerAsync(command));
        }

        foreach (var server in callbacks)
        {
            await server.DisposeAsync();
        }

        foreach (var application in kestrel)
        {
            await application.DisposeAsync();
        }
    }

    private static void Answer<T>(T answer) => Console.WriteLine(JsonSerializer.Serialize(answer));

    private static int PortOf(WebApplication application) => new Uri(application.Urls.Single()).Port;

    private static int PortOf(EndPoint endPoint) => ((IPEndPoint)endPoint).Port;

    private WebApplication Build(LoopScheduling scheduling, IPAddress address)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders().AddProvider(logs).SetMinimumLevel(LogLevel.Warning);
        builder.WebHost.UseEvioTransport(options => (options.LoopCount, options.Scheduling, options.MaxBlockedThreads) = (Loops, scheduling, MaxBlockedThreads));
        builder.WebHost.ConfigureKestrel(options => options.Listen(address, 0, listen => listen.Run(OnConnectedAsync)));
        builder.Services.AddSingleton<IMemoryPoolFactory<byte>>(_pools);
        return builder.Build();
    }

    private async Task OnConnectedAsync(ConnectionContext connection)
    {
        _connections.Enqueue(new WeakReference(connection));
        var first = true;
        ReadResult result;
        do
        {
            result = await connection.Transport.Input.ReadAsync();
            if (first && result.Buffer.Length > 0)
            {
                first = false;
                if (result.Buffer.FirstSpan[0] == Abort)
                {
                    connection.Abort(new ConnectionAbortedException("The client asked for it."));
                    return;
                }
            }

            foreach (var segment in result.Buffer)
            {
                connection.Transport.Output.Write(segment.Span);
            }

            await connection.Transport.Output.FlushAsync();
            connection.Transport.Input.AdvanceTo(result.Buffer.End);
        }
        while (!result.IsCompleted);
    }

    private Events Events(LoopScheduling scheduling) => new()
    {
        NumLoops = Loops,
        Scheduling = scheduling,
        MaxBlockedThreads = MaxBlockedThreads,
        Opened = (connection, ref _) =>
        {
            _connections.Enqueue(new WeakReference(connection));
            return EvioAction.None;
        },
        Data = static (connection, input) =>
        {
            if (connection.Context is null && input.Length > 0 && input[0] == Detach)
            {
                return EvioAction.Detach;
            }

            connection.Context = true;
            connection.Write(input);
            return EvioAction.None;
        },
        Detached = static (_, socket) =>
        {
            using (socket)
            {
                socket.Send(Detached);
            }

            return EvioAction.None;
        },
    };

    private async Task<string> AnswerAsync(string command)
    {
        try
        {
            switch (command.Split(' '))
            {
                case ["wake"]:
                    await WakeAsync();
                    break;
                case ["start", var mode]:
                    await StartAsync(mode, new IPEndPoint(Socket.OSSupportsIPv6 ? IPAddress.IPv6Loopback : IPAddress.Loopback, 0));
                    break;
                case ["start-unix", var mode]:
                    using (var path = new UnixSocketPath())
                    {
                        await StartAsync(mode, path.EndPoint);
                    }

                    break;
                case ["inherit", var mode]:
                    await InheritAsync(mode);
                    break;
                case ["datagrams", var mode]:
                    await StartDatagramsAsync(mode);
                    break;
                case ["connect", var mode, var port]:
                    await ConnectAsync(mode, new IPEndPoint(IPAddress.Loopback, int.Parse(port, CultureInfo.InvariantCulture)));
                    break;
                case ["connect-unix", var mode, var file]:
                    await ConnectAsync(mode, new UnixDomainSocketEndPoint(file));
                    break;
                case ["state"]:
                    return JsonSerializer.Serialize(await StateAsync());
                default:
                    throw new ArgumentException(command);
            }

            return FaultedServer.Done;
        }
        catch (Exception exception) when (exception is SocketException or ArgumentException { ParamName: null } or IOException)
        {
            // What a caller may expect; anything else ends the process, and with it the test.
            return $"{exception.GetType().Name}: {exception.Message}";
        }
    }

    /// <summary>Has every loop make a call, from a thread that is not one of them.</summary>
    private async Task<int> WakeAsync()
    {
        var answers = 0;
        foreach (var loop in _loops)
        {
            var made = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            if (loop.TryPost(_ => made.SetResult(), null))
            {
                await made.Task;
                answers++;
            }
        }

        return answers;
    }

    private static async Task StartAsync(string mode, EndPoint endPoint)
    {
        await using var group = NewGroup(mode);
        await using var listener = await group.ListenAsync(
            endPoint,
            static socket => socket.Close(),
            new StreamListenerOptions { UnixSocketMode = endPoint is UnixDomainSocketEndPoint ? (UnixFileMode)0x1FF : null });
        await TryAsync(listener);
    }

    /// <summary>A listener that has started is one that can be connected to, and these close what they accept.</summary>
    private static async Task TryAsync(StreamListener listener)
    {
        try
        {
            using var client = await SocketExtensions.ConnectAsync(listener.LocalEndPoint);
            _ = await client.ReceiveToEndAsync();
        }
        catch (SocketException exception)
        {
            throw new InvalidOperationException($"{listener.LocalEndPoint} does not listen.", exception);
        }
    }

    private static EventLoopGroup NewGroup(string mode) => new(new EventLoopGroupOptions
    {
        LoopCount = Loops,
        Scheduling = Enum.Parse<LoopScheduling>(mode),
        LoopAffinity = [FirstProcessor()],
        ThreadName = "short life",
        OnUnhandledException = static (_, exception) => Environment.FailFast(exception.ToString()),
    });

    /// <summary>A processor that this process may use.</summary>
    private static int FirstProcessor()
    {
        const string Key = "Cpus_allowed_list:";
        var list = File.ReadLines("/proc/self/status").Single(static line => line.StartsWith(Key, StringComparison.Ordinal))[Key.Length..];
        return int.Parse(list.Split(',', '-')[0], CultureInfo.InvariantCulture);
    }

    private static async Task InheritAsync(string mode)
    {
        using var bound = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        bound.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        await using var group = NewGroup(mode);
        await using var listener = await group.ListenOnDescriptorAsync((int)bound.Handle, ownsDescriptor: false, static socket => socket.Close());
        await TryAsync(listener);
    }

    private static async Task StartDatagramsAsync(string mode)
    {
        var server = await EvioServer.StartAsync(new Events { NumLoops = Loops, Scheduling = Enum.Parse<LoopScheduling>(mode) }, "udp4://:0");
        foreach (var loop in server.Loops)
        {
            // A server that has failed has ended its loops, or will.
            var made = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            if (loop.TryPost(_ => made.SetResult(), null))
            {
                await made.Task;
            }
        }

        await server.StopAsync();
    }

    private async Task ConnectAsync(string mode, EndPoint endPoint)
    {
        await using var connection = await _outbound[mode].ConnectAsync(endPoint);
        var sent = TestData.Bytes(1000);
        await connection.Transport.Output.WriteAsync(sent);
        var result = await connection.Transport.Input.ReadAtLeastAsync(sent.Length);
        if (!result.Buffer.ToArray().AsSpan().SequenceEqual(sent))
        {
            throw new InvalidOperationException("Other bytes came back.");
        }

        connection.Transport.Input.AdvanceTo(result.Buffer.End);
    }

    private async Task<FaultServerState> StateAsync()
    {
        var loops = await WakeAsync();
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        return new FaultServerState(
            _pools.Outstanding,
            [.. _pools.Violations],
            _connections.Count(static reference => reference.IsAlive),
            _loops.Sum(static loop => loop.ConnectionCount),
            loops,
            [.. logs.Entries.Where(static entry => entry.EventId.Name == "LoopException").Select(static entry => entry.Exception!.Message)]);
    }
}
