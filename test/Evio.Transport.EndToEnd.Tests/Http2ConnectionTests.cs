using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Net;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Http;
using static Evio.Transport.EndToEnd.Tests.RawHttp2Client;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>HTTP/2 frame by frame, and its connection as a whole.</summary>
public sealed class Http2ConnectionTests
{
    [Theory, AllTransports]
    public async Task A_stop_says_GOAWAY_and_lets_the_streams_in_flight_end(TransportKind kind)
    {
        var entered = new SemaphoreSlim(0);
        var mayEnd = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                entered.Release();
                await mayEnd.Task;
                await context.Response.WriteAsync("ok");
            },
            HostSettings.Http2);
        using var client = await ConnectAsync(host);
        await client.GetAsync(1);
        await client.GetAsync(3);
        await entered.WaitAsync().OrTimeout();
        await entered.WaitAsync().OrTimeout();

        var stop = host.StopAsync();
        await client.ReadUntilAsync(static frame => frame.Type is FrameType.GoAway);
        Assert.False(stop.IsCompleted);
        mayEnd.SetResult();

        var ended = new HashSet<int>();
        await client.ReadUntilAsync(frame => frame.EndsStream && ended.Add(frame.Stream) && ended.Count == 2);
        Assert.Equal([1, 3], ended.Order());

        // Kestrel looks whether all streams have ended when something comes in.
        await client.SendAsync(FrameType.Ping, 0, 0, new byte[8]);
        await client.Socket.ReceiveToEndAsync().OrTimeout();
        await stop.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task An_application_that_aborts_resets_its_stream_alone(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static context =>
            {
                context.Abort();
                return Task.CompletedTask;
            },
            HostSettings.Http2);
        using var client = await ConnectAsync(host);

        await client.GetAsync(1);

        Assert.Equal(1, (await client.ReadUntilAsync(static frame => frame.Type is FrameType.ResetStream)).Stream);
        await client.PingAsync();
    }

    [Theory, AllTransports("FIN", "RST")]
    public async Task The_end_of_the_connection_aborts_all_its_requests(TransportKind kind, string end)
    {
        const int Streams = 20;
        var entered = new SemaphoreSlim(0);
        var aborted = new SemaphoreSlim(0);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                var gone = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                using var registration = context.RequestAborted.Register(gone.SetResult);
                entered.Release();
                await gone.Task;
                aborted.Release();
            },
            HostSettings.Http2);
        using var client = await ConnectAsync(host);
        for (var i = 0; i < Streams; i++)
        {
            await client.GetAsync((2 * i) + 1);
            await entered.WaitAsync().OrTimeout();
        }

        if (end == "RST")
        {
            client.Socket.Reset();
        }
        else
        {
            client.Socket.Dispose();
        }

        for (var i = 0; i < Streams; i++)
        {
            await aborted.WaitAsync().OrTimeout();
        }
    }

    [Theory, AllTransports]
    public async Task A_client_that_says_GOAWAY_gets_its_answer_and_then_a_FIN(TransportKind kind)
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var mayEnd = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                entered.SetResult();
                await mayEnd.Task;
                await context.Response.WriteAsync("ok");
            },
            HostSettings.Http2);
        using var client = await ConnectAsync(host);
        await client.GetAsync(1);
        await entered.Task.OrTimeout();

        await client.SendAsync(FrameType.GoAway, 0, 0, new byte[8]);
        await client.PingAsync();
        mayEnd.SetResult();

        await client.ReadUntilAsync(static frame => frame.EndsStream);
        await client.Socket.ReceiveToEndAsync().OrTimeout();
    }

    [Theory, AllTransports]
    public async Task A_broken_frame_is_answered_with_GOAWAY_and_FIN(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, Applications.EchoAsync, HostSettings.Http2);
        using var client = await ConnectAsync(host);

        // DATA on a stream that was never opened.
        await client.SendAsync(FrameType.Data, 0, 1, new byte[10]);

        var goAway = await client.ReadUntilAsync(static frame => frame.Type is FrameType.GoAway);
        Assert.NotEqual(0, BinaryPrimitives.ReadInt32BigEndian(goAway.Payload.AsSpan(4)));
        await client.Socket.ReceiveToEndAsync().OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Frames_sent_byte_by_byte_are_understood(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(kind, static context => context.Response.WriteAsync("ok"), HostSettings.Http2);
        using var client = await ConnectAsync(host);

        for (var stream = 1; stream <= 5; stream += 2)
        {
            foreach (var single in Frame(FrameType.Headers, 0x5, stream, Get))
            {
                await client.Socket.SendAllAsync(new[] { single }).OrTimeout();
            }

            Assert.Equal(stream, (await client.ReadUntilAsync(static frame => frame.EndsStream)).Stream);
        }
    }

    [Theory, AllTransports]
    public async Task A_stream_without_window_waits_while_the_connection_goes_on(TransportKind kind)
    {
        const int Size = 200_000;
        const int InitialWindow = 65_535;
        await using var host = await TransportHost.StartAsync(
            kind, static context => context.Response.Body.WriteAsync(TestData.Bytes(Size)).AsTask(), HostSettings.Http2);
        using var client = await ConnectAsync(host);
        using var body = new MemoryStream();

        await client.GetAsync(1);
        await client.ReadUntilAsync(frame => Collect(frame) && body.Length == InitialWindow);
        await client.PingAsync();
        var increment = new byte[4];
        BinaryPrimitives.WriteInt32BigEndian(increment, Size);
        await client.SendAsync(FrameType.WindowUpdate, 0, 0, increment);
        await client.SendAsync(FrameType.WindowUpdate, 0, 1, increment);

        await client.ReadUntilAsync(frame => Collect(frame) && frame.EndsStream);
        TestData.AssertSame(TestData.Bytes(Size), body.ToArray());

        bool Collect(ReceivedFrame frame)
        {
            if (frame.Type is FrameType.Data)
            {
                body.Write(frame.Payload);
            }

            return frame.Type is FrameType.Data;
        }
    }

    [Theory, AllTransports]
    public async Task A_hundred_streams_of_one_connection_are_in_flight_at_once(TransportKind kind)
    {
        const int Streams = 100;
        using var arrived = new CountdownEvent(Streams);
        var allArrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var connections = new ConcurrentDictionary<string, bool>();
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                connections.TryAdd(context.Connection.Id, true);
                if (arrived.Signal())
                {
                    allArrived.SetResult();
                }

                await allArrived.Task;
                await context.Response.Body.WriteAsync(TestData.Bytes(20_000, seed: int.Parse(context.Request.Path.Value![1..], null)));
            },
            HostSettings.Http2 with { Kestrel = static options => options.Limits.Http2.MaxStreamsPerConnection = Streams });
        using var client = host.CreateClient(HttpVersion.Version20);

        var bodies = await Task.WhenAll(Enumerable.Range(0, Streams).Select(i => client.GetByteArrayAsync($"/{i}"))).OrTimeout();

        for (var i = 0; i < Streams; i++)
        {
            TestData.AssertSame(TestData.Bytes(20_000, seed: i), bodies[i]);
        }

        Assert.Single(connections);
    }

    [Theory, AllTransports("h2c", "TLS")]
    public async Task A_stop_completes_all_streams_in_flight(TransportKind kind, string protocol)
    {
        const int Streams = 50;
        using var entered = new CountdownEvent(Streams);
        var allEntered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var mayEnd = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var host = await TransportHost.StartAsync(
            kind,
            async context =>
            {
                if (entered.Signal())
                {
                    allEntered.SetResult();
                }

                await mayEnd.Task;
                await context.Response.Body.WriteAsync(TestData.Bytes(50_000));
            },
            protocol == "TLS" ? HostSettings.Https : HostSettings.Http2);
        using var client = host.CreateClient(HttpVersion.Version20);
        var gets = Enumerable.Range(0, Streams).Select(_ => client.GetByteArrayAsync("/")).ToArray();
        await allEntered.Task.OrTimeout();

        var stop = host.StopAsync();
        mayEnd.SetResult();

        foreach (var body in await Task.WhenAll(gets).OrTimeout())
        {
            TestData.AssertSame(TestData.Bytes(50_000), body);
        }

        await stop.OrTimeout();
    }

    [Theory, AllTransports]
    public async Task Trailers_of_the_request_arrive(TransportKind kind)
    {
        await using var host = await TransportHost.StartAsync(
            kind,
            static async context =>
            {
                await context.Request.Body.CopyToAsync(Stream.Null);
                await context.Response.WriteAsync(context.Request.GetTrailer("x-trailer").ToString());
            },
            HostSettings.Http2);
        using var client = await ConnectAsync(host);

        // POST of three bytes, and then a literal header field (RFC 7541, 6.2.2) that ends the stream.
        byte[] post = [0x83, .. Get.AsSpan(1)];
        byte[] trailer = [0, 9, .. "x-trailer"u8, 5, .. "value"u8];
        await client.SendAsync(FrameType.Headers, 0x4, 1, post);
        await client.SendAsync(FrameType.Data, 0, 1, "abc"u8.ToArray());
        await client.SendAsync(FrameType.Headers, 0x5, 1, trailer);

        Assert.Equal("value"u8.ToArray(), (await client.ReadUntilAsync(static frame => frame.Type is FrameType.Data)).Payload);
    }
}
