using Evio.Transport.Ecosystem.Tests.Grpc;
using Evio.Transport.Testing;
using Google.Protobuf;
using Grpc.Core;

namespace Evio.Transport.Ecosystem.Tests;

/// <summary>gRPC, server and client from its packages, over HTTP/2 with prior knowledge and over TLS.</summary>
public sealed class GrpcTests
{
    private const bool Plain = false;
    private const bool Tls = true;

    [Theory, AllTransports(Plain, Tls)]
    public async Task A_unary_call_is_answered(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);
        var sent = Message(7, 3_000_000);

        Assert.Equal(new Message(), await host.Client.SayAsync(new Message()).ResponseAsync.OrTimeout());
        Assert.Equal(sent, await host.Client.SayAsync(sent).ResponseAsync.OrTimeout());
    }

    [Theory, AllTransports(Plain, Tls)]
    public async Task A_client_stream_arrives_whole_and_in_order(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);
        var sent = TestData.Bytes(2_000_000);
        using var call = host.Client.Gather();

        foreach (var piece in sent.Chunk(9_999))
        {
            await call.RequestStream.WriteAsync(new Message { Data = ByteString.CopyFrom(piece) }).OrTimeout();
        }

        await call.RequestStream.CompleteAsync().OrTimeout();
        var answer = await call.ResponseAsync.OrTimeout();

        Assert.Equal((sent.Length + 9_998) / 9_999, answer.Number);
        TestData.AssertSame(sent, answer.Data.Memory);
    }

    [Theory, AllTransports(Plain, Tls)]
    public async Task A_server_stream_arrives_whole_and_in_order(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);
        var asked = Message(2000, 1000);
        using var call = host.Client.Count(asked);

        var received = 0;
        while (await call.ResponseStream.MoveNext(default).OrTimeout())
        {
            Assert.Equal(received++, call.ResponseStream.Current.Number);
            Assert.Equal(asked.Data, call.ResponseStream.Current.Data);
        }

        Assert.Equal(2000, received);
    }

    [Theory, AllTransports(Plain, Tls)]
    public async Task A_conversation_stays_in_step(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);
        using var call = host.Client.Converse();
        for (var i = 0; i < 300; i++)
        {
            var sent = Message(i, i * 10);
            await call.RequestStream.WriteAsync(sent).OrTimeout();
            Assert.True(await call.ResponseStream.MoveNext(default).OrTimeout());
            Assert.Equal(sent, call.ResponseStream.Current);
        }

        await call.RequestStream.CompleteAsync().OrTimeout();
        Assert.False(await call.ResponseStream.MoveNext(default).OrTimeout());
    }

    [Theory, AllTransports(Plain, Tls)]
    public async Task Both_streams_flow_at_the_same_time(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);
        using var call = host.Client.Converse();
        var sending = Task.Run(async () =>
        {
            for (var i = 0; i < 500; i++)
            {
                await call.RequestStream.WriteAsync(Message(i, 10_000));
            }

            await call.RequestStream.CompleteAsync();
        });

        for (var i = 0; i < 500; i++)
        {
            Assert.True(await call.ResponseStream.MoveNext(default).OrTimeout());
            Assert.Equal(Message(i, 10_000), call.ResponseStream.Current);
        }

        Assert.False(await call.ResponseStream.MoveNext(default).OrTimeout());
        await sending.OrTimeout();
    }

    [Theory, AllTransports(Plain, Tls)]
    public async Task Calls_of_one_connection_run_in_parallel(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);

        var answers = await Task.WhenAll(Enumerable.Range(0, 80).Select(i => host.Client.SayAsync(Message(i, 20_000)).ResponseAsync)).OrTimeout();

        Assert.Equal(Enumerable.Range(0, 80).Select(static i => Message(i, 20_000)), answers);
    }

    [Theory, AllTransports(Plain, Tls)]
    public async Task A_call_that_the_client_cancels_ends_at_the_server(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);
        using var cancellation = new CancellationTokenSource();
        var call = host.Client.WaitAsync(new Message(), cancellationToken: cancellation.Token);
        await host.Witness.Waiting.Task.OrTimeout();

        await cancellation.CancelAsync();

        Assert.Equal(StatusCode.Cancelled, (await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync.OrTimeout())).StatusCode);
        await host.Witness.GivenUp.Task.OrTimeout();
        Assert.Equal(1, (await host.Client.SayAsync(new Message { Number = 1 }).ResponseAsync.OrTimeout()).Number);
    }

    [Theory, AllTransports(Plain, Tls)]
    public async Task A_deadline_ends_a_call_on_both_sides(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);
        await host.Client.SayAsync(new Message()).ResponseAsync.OrTimeout();

        var call = host.Client.WaitAsync(new Message(), deadline: DateTime.UtcNow.AddMilliseconds(200));

        Assert.Equal(StatusCode.DeadlineExceeded, (await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync.OrTimeout())).StatusCode);
    }

    [Theory, AllTransports(Plain, Tls)]
    public async Task A_failure_arrives_with_its_status_and_trailers(TransportKind kind, bool tls)
    {
        await using var host = await TalkHost.StartAsync(kind, tls);

        var failure = await Assert.ThrowsAsync<RpcException>(
            () => host.Client.FailAsync(new Message { Number = (int)StatusCode.DataLoss }).ResponseAsync.OrTimeout());

        Assert.Equal((StatusCode.DataLoss, "as asked"), (failure.StatusCode, failure.Status.Detail));
        Assert.Equal("asked to", failure.Trailers.GetValue("reason"));
    }

    [Theory, EvioTransports]
    public async Task Server_and_client_share_their_loops(TransportKind kind)
    {
        await using var host = await TalkHost.StartOnOneGroupAsync(kind);
        using var call = host.Client.Converse();
        for (var i = 0; i < 100; i++)
        {
            var sent = Message(i, 5_000);
            await call.RequestStream.WriteAsync(sent).OrTimeout();
            Assert.True(await call.ResponseStream.MoveNext(default).OrTimeout());
            Assert.Equal(sent, call.ResponseStream.Current);
        }
    }

    private static Message Message(int number, int length) => new() { Number = number, Data = ByteString.CopyFrom(TestData.Bytes(length)) };
}
