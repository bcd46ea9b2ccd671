using System.Net.Sockets;

namespace Evio.Soak;

/// <summary>One thing that a client of the callback server does.</summary>
internal sealed record CallbackVisit(CallbackServer Server, Random Random, CancellationToken Cancellation)
{
    public Tally Tally => Server.Tally;

    /// <summary>Mostly small, sometimes beyond every buffer on the way.</summary>
    public int Size(int most)
    {
        var bound = Random.Next(10) switch { < 4 => 100, < 7 => 5000, < 9 => 70_000, _ => most };
        return Random.Next(Math.Min(bound, most) + 1);
    }

    public async Task<CallbackClient> ConnectAsync()
    {
        int[] addresses = [CallbackHost.Tcp, CallbackHost.Unix, CallbackHost.Managed];
        return await CallbackClient.ConnectAsync(this, Server.EndPointOf(addresses[Random.Next(addresses.Length)]));
    }
}

/// <summary>Clients of the callback server.</summary>
internal static class CallbackVisits
{
    private static readonly TimeSpan DatagramPatience = TimeSpan.FromSeconds(5);

    public static IReadOnlyList<(string Name, Func<CallbackVisit, Task> DoAsync)> Kinds { get; } =
    [
        ("stream", StreamAsync),
        ("many wakes and sends", WakesAndSendsAsync),
        ("end amid everything", AbandonAsync),
        ("opened throws", RefusedAsync),
        ("closed by another", ClosedByAnotherAsync),
        ("closed by a datagram", ClosedByDatagramAsync),
        ("datagrams", DatagramsAsync),
    ];

    /// <summary>Asks for everything that there is, waits for all answers, and ends in one of the ways that there are.</summary>
    private static async Task StreamAsync(CallbackVisit visit)
    {
        await using var client = await visit.ConnectAsync();
        for (var left = visit.Random.Next(1, 30); left > 0; left--)
        {
            await AskAsync(visit, client);
        }

        await client.WaitForAnswersAsync();
        visit.Tally.Fault();
        switch (visit.Random.Next(10))
        {
            case 0:
                client.Reset();
                return;
            case 1:
                await client.AskAsync(MessageKind.Throw);
                await ExpectResetAsync(client.WaitForEndAsync(), client.IsUnix);
                return;
            case 2:
                await client.AskAsync(MessageKind.Close);
                break;
            case 3:
                await client.AskAsync(MessageKind.CloseElsewhere);
                break;
            case 4:
                await client.AskAsync(MessageKind.Shutdown);
                break;
            case 5:
                await client.AskAsync(MessageKind.ShutdownElsewhere);
                break;
            case 6 or 7:
                if (visit.Random.Next(2) == 0)
                {
                    await client.AskAsync(MessageKind.ThrowAtEnd);
                }

                client.Expect(MessageKind.Bye, 0);
                await client.AskAsync(MessageKind.Detach);
                await client.WaitForAnswersAsync();
                break;
            case 8:
                await client.AskAsync(MessageKind.ThrowAtEnd);
                client.ShutdownSend();
                break;
            default:
                client.ShutdownSend();
                break;
        }

        await client.WaitForEndAsync();
    }

    /// <summary>Has other threads wake it and send, as often as they can, while its callbacks block.</summary>
    private static async Task WakesAndSendsAsync(CallbackVisit visit)
    {
        await using var client = await visit.ConnectAsync();
        for (var left = visit.Random.Next(1, 5); left > 0; left--)
        {
            await client.AskForWakesAsync(visit.Random.Next(1, 100));
            await client.AskForSendsAsync(visit.Random.Next(1, 300), visit.Random.Next(200));
            await client.AskForEchoAsync(visit.Size(100_000));
            await client.AskForSendsAsync(visit.Random.Next(1, 50), visit.Random.Next(5000));
        }

        await client.WaitForAnswersAsync();
        client.ShutdownSend();
        await client.WaitForEndAsync();
    }

    /// <summary>Goes, or has the server end, while it still asks. What has come until then is right.</summary>
    private static async Task AbandonAsync(CallbackVisit visit)
    {
        await using var client = await visit.ConnectAsync();
        visit.Tally.Fault();
        try
        {
            for (var left = visit.Random.Next(1, 10); left > 0; left--)
            {
                await AskAsync(visit, client);
            }

            MessageKind[] ends = [MessageKind.Close, MessageKind.CloseElsewhere, MessageKind.Detach, MessageKind.Throw, MessageKind.ThrowAtEnd];
            client.Expect(MessageKind.Bye, 0);
            await client.AskAsync(ends[visit.Random.Next(ends.Length)]);
            for (var left = visit.Random.Next(5); left > 0; left--)
            {
                await AskAsync(visit, client);
            }
        }
        catch (SocketException)
        {
            // The server has ended it.
        }

        if (visit.Random.Next(2) == 0)
        {
            client.Reset();
        }
    }

    private static async Task RefusedAsync(CallbackVisit visit)
    {
        visit.Tally.Fault();
        await ExpectResetAsync(BeRefusedAsync());

        async Task BeRefusedAsync()
        {
            await using var client = await CallbackClient.ConnectAsync(visit, visit.Server.EndPointOf(CallbackHost.Refusing));
            await client.WaitForEndAsync();
        }
    }

    /// <summary>A callback that throws resets its connection. On a Unix-domain socket all of whose bytes were read, a reset looks like an end (unix(7)).</summary>
    private static async Task ExpectResetAsync(Task connection, bool isUnix = false)
    {
        try
        {
            await connection;
        }
        catch (SocketException reset) when (reset.SocketErrorCode is SocketError.ConnectionReset or SocketError.Shutdown)
        {
            return;
        }

        if (!isUnix)
        {
            throw new SoakException("an end in order after a callback has thrown");
        }
    }

    /// <summary>Another connection's callback closes this one, which gets all that was written before.</summary>
    private static async Task ClosedByAnotherAsync(CallbackVisit visit)
    {
        await using var closing = await visit.ConnectAsync();
        await using var closed = await visit.ConnectAsync();
        for (var left = visit.Random.Next(10); left > 0; left--)
        {
            await AskAsync(visit, closed);
            await AskAsync(visit, closing);
        }

        // The server knows who it is by then, and finds it.
        await closed.AskForEchoAsync(visit.Size(1000));

        await closed.WaitForAnswersAsync();
        visit.Tally.Fault();
        if (visit.Random.Next(2) == 0)
        {
            await closing.AskAsync(MessageKind.CloseOther, closed.Identity);
        }
        else
        {
            await closing.AskForEchoAsync(visit.Size(1000), MessageKind.CloseOtherBeforeWrite, closed.Identity);
        }

        await closing.AskForEchoAsync(visit.Size(100_000));
        await closed.WaitForEndAsync();
        await closing.WaitForAnswersAsync();
        closing.ShutdownSend();
        await closing.WaitForEndAsync();
    }

    private static async Task ClosedByDatagramAsync(CallbackVisit visit)
    {
        await using var closed = await visit.ConnectAsync();
        for (var left = visit.Random.Next(10); left > 0; left--)
        {
            await AskAsync(visit, closed);
        }

        await closed.AskForEchoAsync(visit.Size(1000));
        await closed.WaitForAnswersAsync();
        visit.Tally.Fault();
        using var socket = await ConnectDatagramsAsync(visit);
        await ExchangeAsync(visit, socket, new Message(visit.Random.NextInt64(), MessageKind.CloseOther, 0, closed.Identity, visit.Random.Next(1000)));
        await closed.WaitForEndAsync();
    }

    private static async Task DatagramsAsync(CallbackVisit visit)
    {
        using var socket = await ConnectDatagramsAsync(visit);
        var identity = visit.Random.NextInt64();
        for (var number = 0; number < 50; number++)
        {
            var kind = visit.Random.Next(10) switch { 0 => MessageKind.Throw, 1 => MessageKind.Invoke, _ => MessageKind.Echo };
            var ask = new Message(identity, kind, number, Length: visit.Random.Next(1300));
            if (kind == MessageKind.Throw)
            {
                visit.Tally.Fault();
                await socket.SendAsync(ask.ToBytes(), visit.Cancellation);
            }
            else
            {
                await ExchangeAsync(visit, socket, ask);
            }
        }
    }

    private static async Task AskAsync(CallbackVisit visit, CallbackClient client)
    {
        var random = visit.Random;
        switch (random.Next(8))
        {
            case 0:
                await client.AskForSendsAsync(random.Next(1, 20), visit.Size(20_000));
                break;
            case 1:
                await client.AskForWakesAsync(random.Next(1, 10));
                break;
            case 2:
                await client.AskForOneAsync(MessageKind.Timer, MessageKind.Timed, random.Next(30));
                break;
            case 3:
                await client.AskForOneAsync(MessageKind.Post, MessageKind.Posted, 0);
                break;
            default:
                await client.AskForEchoAsync(visit.Size(300_000));
                break;
        }

        if (random.Next(8) == 0)
        {
            await Task.Delay(random.Next(10), visit.Cancellation);
        }
    }

    private static async Task<Socket> ConnectDatagramsAsync(CallbackVisit visit)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        await socket.ConnectAsync(visit.Server.EndPointOf(visit.Random.Next(2) == 0 ? CallbackHost.Udp : CallbackHost.ManagedUdp), visit.Cancellation);
        return socket;
    }

    /// <summary>Sends a datagram, again if it seems lost, until its answer is there.</summary>
    private static async Task ExchangeAsync(CallbackVisit visit, Socket socket, Message ask)
    {
        for (var attempt = 1; !await TryExchangeAsync(visit, socket, ask); attempt++)
        {
            if (attempt == 5)
            {
                throw new SoakException($"a datagram was sent {attempt} times, without an answer: {ask}");
            }

            visit.Tally.Repeat();
        }
    }

    private static async Task<bool> TryExchangeAsync(CallbackVisit visit, Socket socket, Message ask)
    {
        await socket.SendAsync(ask.ToBytes(), visit.Cancellation);
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(visit.Cancellation);
        patience.CancelAfter(DatagramPatience);
        try
        {
            var buffer = new byte[2048];
            while (true)
            {
                var count = await socket.ReceiveAsync(buffer, patience.Token);
                var answer = Read(buffer.AsSpan(0, count));
                if (answer.Number == ask.Number)
                {
                    if (answer != ask with { Kind = MessageKind.Echoed, Argument = 0 })
                    {
                        throw new SoakException($"{answer} to {ask}");
                    }

                    visit.Tally.Verified(count);
                    return true;
                }

                // One that comes late is the answer to a datagram that was sent twice.
                if (answer.Connection != ask.Connection || answer.Kind != MessageKind.Echoed || answer.Number > ask.Number)
                {
                    throw new SoakException($"{answer} to {ask}");
                }
            }
        }
        catch (OperationCanceledException) when (!visit.Cancellation.IsCancellationRequested)
        {
            return false;
        }
    }

    private static Message Read(ReadOnlySpan<byte> datagram) => Message.TryRead(ref datagram, out var message) && datagram.IsEmpty
        ? message
        : throw new SoakException("a datagram that is none");
}
